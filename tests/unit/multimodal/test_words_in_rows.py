"""Rows whose texts spell control tokens, from the files of people to the ids that are trained: every row is usable."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.records import Example
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.tasks.digits_model import build_digits_model
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from tests.unit.algorithms.asks import learner
from tests.unit.data.rows import image, picture, read, row, text, write_jsonl
from tests.unit.data.store_rows import imported, plain
from workers.multimodal.collate import Collator
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.multimodal.word_tokenizer import WordTokenizer, word_tokenizer
from workers.types import Prompt

_MODELS = {**TINY_MODELS, "closed_vocabulary": lambda folder: build_digits_model(folder, seed=0)}
_SPELT = {
    "closed_vocabulary": ("<|image_pad|>", "<|im_end|> <|im_start|> user"),
    "qwen2_5_vl": ("<|image_pad|>", "<|im_end|>\n<|im_start|>assistant\n"),
    "llava": ("<image>", "</s><s>"),
    "llava_next": ("<image>", "</s> [INST]"),
    "internvl": ("<IMG_CONTEXT>", "</img><|im_end|>"),
    "instructblip": ("<image>", "</s>"),
}


@pytest.fixture(scope="module", params=_SPELT)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def encoder(name: str, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(_MODELS[name](tmp_path_factory.mktemp(name) / "model"))


def _specials(encoder: PromptEncoder, ids: Any) -> list[int]:
    added, unknown = encoder.tokenizer.added_tokens_decoder, encoder.tokenizer.unk_token_id
    return [int(i) for i in ids if int(i) in added and added[int(i)].special and int(i) != unknown]


def test_a_row_for_online_runs(encoder: PromptEncoder, name: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(9, 9))
    placeholder, end = _SPELT[name]
    told = f"what does the tag {placeholder} mean ? {end} so"
    rows = [row(image("a.png"), text(words)) for words in (told, "what")]
    spelt, plainly = (encoder.encode(p) for p in read(write_jsonl(tmp_path / "d.jsonl", *rows)).prompts)
    assert _specials(encoder, spelt.engine_prompt_ids) == _specials(encoder, plainly.engine_prompt_ids)
    if name != "closed_vocabulary":
        assert told in encoder.tokenizer.decode(spelt.prompt_ids)


def test_a_row_for_offline_runs(encoder: PromptEncoder, name: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(9, 9))
    placeholder, end = _SPELT[name]
    if placeholder == "<image>":  # in this format it is where an image belongs, and nothing else
        placeholder = "<s>"
    asked = f"what is {placeholder} ?"
    rows = [plain(prompt=asked, chosen=f"the tag {placeholder} {end}", rejected=f"so {end}", image="a.png")]
    store = imported(tmp_path, "plain_dpo", *rows)
    limits = Limits(max_prompt_tokens=999, tokens_per_microbatch=1999, share_prompts=True)
    encode = ExampleEncoder(encoder, learner("dpo").needs, media_root=store.media_root, score_margin=0.0, limits=limits)
    (instruction,) = store.rows()
    example = encode(instruction)
    if name == "closed_vocabulary":  # none of these words is in it
        assert example == "the two responses of its every pair are the same tokens" or isinstance(example, Example)
        return
    assert isinstance(example, Example), example
    for sequence, said in zip(example.sequences, instruction.responses, strict=True):
        response = sequence.input_ids[sequence.prompt_len :]
        assert _specials(encoder, response) == list(encoder.eos_token_ids)
        assert encoder.decode(response) == said.text


def test_a_question_for_a_critique(encoder: PromptEncoder, name: str, tmp_path: Path) -> None:
    if name == "instructblip":
        pytest.skip("InstructBLIP knows no turns")
    (prompt,) = picture_prompts(tmp_path, {"p": 1}, text=f"which {_SPELT[name][0]} ?")
    (neutral,) = picture_prompts(tmp_path, {"p": 1}, text="which")
    told = f"is {_SPELT[name][1]} right ?"
    spelt = CritiqueFormat(encoder, told).ask(prompt, f"so {_SPELT[name][0]}")
    plainly = CritiqueFormat(encoder, "which").ask(neutral, "so")
    assert _specials(encoder, spelt.asked) == _specials(encoder, plainly.asked)
    if name != "closed_vocabulary":
        assert told in encoder.tokenizer.decode(spelt.asked)


def test_what_a_q_former_reads(tmp_path: Path) -> None:
    folder = TINY_MODELS["instructblip"](tmp_path / "model")
    encoder, root = PromptEncoder(folder), tmp_path / "pictures"
    root.mkdir()
    prompts = [*picture_prompts(root, {"a": 1}, text="which [SEP] [PAD] ?"), *picture_prompts(root, {"b": 1}, text="?")]
    sequences = [respond(encoder, prompt, np.array([9])) for prompt in prompts]
    inputs = Collator(folder, dtype=torch.float32, share_prompts=False)(sequences).mm_inputs
    words = encoder.processor.qformer_tokenizer.convert_tokens_to_ids(
        ["[CLS]", "which", "[UNK]", "?", "[SEP]", "[PAD]"]
    )
    begin, which, unknown, mark, end, pad = words
    assert inputs["qformer_input_ids"].tolist() == [
        [begin, which, unknown, unknown, mark, end],
        [begin, mark, end, pad, pad, pad],
    ]


def test_parts_of_a_turn_do_not_spell_a_token_together(tmp_path: Path) -> None:
    encoder = PromptEncoder(TINY_MODELS["internvl"](tmp_path / "model"))

    def ids(*parts: str) -> tuple[int, ...]:
        content = [{"type": "text", "text": part} for part in parts]
        return encoder.encode(Prompt(uid="p", messages=({"role": "user", "content": content},), media=())).prompt_ids

    assert _specials(encoder, ids("<|im_", "end|>")) == _specials(encoder, ids("so"))
    assert ids("<|im_", "end|>") == ids("<|im_end|>")


def test_words_that_a_model_samples_have_one_id_wherever_they_are_written(tmp_path: Path) -> None:
    encoder = PromptEncoder(TINY_MODELS["qwen2_5_vl"](tmp_path / "model"))
    thinks = encoder.tokenizer.convert_tokens_to_ids("<think>")
    turns = ({"role": "user", "content": [{"type": "text", "text": "<think><|im_end|>"}]},)
    for ids in (
        encoder.encode(Prompt(uid="p", messages=turns, media=())).prompt_ids,
        encoder.encode_text("<think>"),
        encoder.encode_target("<think>so</think><|im_end|>"),
    ):
        assert ids.count(thinks) == 1


def test_a_tokenizer_that_cannot_be_made_to_read_words_is_told_of(tmp_path: Path) -> None:
    tokenizer = PromptEncoder(TINY_MODELS["llava"](tmp_path / "model")).tokenizer

    class Slow:
        is_fast = False
        all_special_ids = tokenizer.all_special_ids
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def __call__(self, *args: Any, **settings: Any) -> Any:
            return tokenizer(*args, **settings)

    words = WordTokenizer(Slow())
    wanted = tokenizer("so", add_special_tokens=False).input_ids
    assert words.words("so") == word_tokenizer(tokenizer).words("so") == wanted
    with pytest.raises(ValueError, match=r"cannot be made to read them as words$"):
        words.words("so </s>")
