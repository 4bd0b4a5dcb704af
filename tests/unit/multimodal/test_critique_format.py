"""MM-RLHF T9: what a critique reward model is trained on and what it is asked are the same ids."""

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.records import Example, Sequence
from orchestrator.cluster.microbatches import Deal
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.records import Instruction, Response, StoredMedia, prompt_of
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueJudge, CritiqueLimits, Question
from orchestrator.tasks.digits_model import build_digits_model
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts
from tests.unit.algorithms.asks import learner
from workers.models.adapters import ADAPTERS
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.processor import expand_placeholders, image_expansions
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt

_REQUEST = "which response , the image or none ?"
_SAID = (("the image shows one .", "so response one ."), ("two", "the image shows two . two"), ("so", "which ?"))
_IMAGES = {"none": 0, "one": 1, "three": 3}


@pytest.fixture(scope="module", params=[name for name in TINY_MODELS if not ADAPTERS[name].qformer])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    return picture_prompts(tmp_path_factory.mktemp("pictures"), _IMAGES, sizes=MIXED_SIZES)


def _instruction(prompt: Prompt) -> Instruction:
    ranked = [Response(text=text, critique=critique, rank=rank) for rank, (text, critique) in enumerate(_SAID, start=1)]
    media = tuple(
        StoredMedia(sha256=m.sha256, path=m.path, size_bytes=1, width=m.width, height=m.height) for m in prompt.media
    )
    return Instruction(uid=prompt.uid, split="train", messages=prompt.messages, media=media, responses=tuple(ranked))


def _trained_on(encoder: PromptEncoder, instruction: Instruction) -> Example:
    made = ExampleEncoder(
        encoder,
        learner("critique_rm").needs,
        media_root=Path("/"),
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=10**6, tokens_per_microbatch=10**6, share_prompts=True),
        critiques=CritiqueFormat(encoder, _REQUEST),
    )(instruction)
    assert isinstance(made, Example), made
    return made


class _Workers:
    """What reaches the critique reward workers of one instruction; they write the critiques it was annotated with."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self.requests: list[GenerationRequest] = []
        self.sequences: list[Sequence] = []

    def each(self, method: str, items: Seq[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        return self._write(items) if method == "write" else self._rewards(items)

    def _write(self, requests: Seq[GenerationRequest]) -> list[Completion]:
        self.requests += requests
        return [
            Completion(
                uid=r.uid,
                sample_index=r.sample_index,
                completion_ids=np.array(self._encoder.encode_target(critique), np.int32),
                rollout_logprobs=np.zeros(0, np.float32),
                finish_reason="stop",
                policy_version=0,
                engine="",
            )
            for r, (_, critique) in zip(requests, _SAID, strict=True)
        ]

    def _rewards(self, sequences: Seq[Sequence]) -> list[float]:
        self.sequences += sequences
        return [0.0] * len(sequences)


def _asked(encoder: PromptEncoder, instruction: Instruction, folder: Path) -> _Workers:
    workers = _Workers(encoder)
    with CritiqueCache(folder / f"{instruction.uid}.sqlite") as cache:
        judge = CritiqueJudge(
            workers,
            encoder,
            cache,
            request=_REQUEST,
            fingerprint="",
            limits=CritiqueLimits(max_new_tokens=8, max_model_len=10**6),
            deadline_s=1.0,
        )
        prompt = prompt_of(instruction, media_root=Path("/"))
        judge.judge([Question(prompt=prompt, response=text) for text, _ in _SAID])
    return workers


def test_training_and_asking_are_the_same_ids(encoder: PromptEncoder, prompts: list[Prompt], tmp_path: Path) -> None:
    for prompt in prompts:
        instruction = _instruction(prompt)
        example, asked = _trained_on(encoder, instruction), _asked(encoder, instruction, tmp_path)
        expansions = image_expansions(encoder.processor, encoder.config, [(m.height, m.width) for m in prompt.media])
        assert len(asked.requests) == len(asked.sequences) == len(example.sequences) == len(_SAID)
        for index, (_, critique) in enumerate(_SAID):
            request, read = asked.requests[index], asked.sequences[index]
            # What vLLM makes of the ids it is handed is what a model's forward sees ...
            if ADAPTERS[encoder.config.model_type].vllm:
                expanded = expand_placeholders(list(request.engine_prompt_ids), encoder.image_token_id, expansions)
                assert tuple(expanded) == request.prompt_ids
            # ... and with the critique that it writes, closed by the end of turn, it is what was trained on.
            learnt, start = example.sequences[index], example.critique_starts[index]
            assert start == len(request.prompt_ids)
            np.testing.assert_array_equal(learnt.input_ids, [*request.prompt_ids, *encoder.encode_target(critique)])
            np.testing.assert_array_equal(learnt.input_ids, read.input_ids)
            assert (learnt.uid, learnt.sample_index, learnt.prompt_len) == (prompt.uid, index, read.prompt_len)
            assert learnt.media == read.media and len(read.media) == len(prompt.media)
            assert int(learnt.input_ids[-1]) in encoder.eos_token_ids


def test_prompt_and_request_are_the_words_of_one_conversation(encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        question = CritiqueFormat(encoder, _REQUEST).ask(prompt, _SAID[0][0])
        turns = [
            *prompt.messages,
            {"role": "assistant", "content": [{"type": "text", "text": _SAID[0][0]}]},
            {"role": "user", "content": [{"type": "text", "text": _REQUEST}]},
        ]
        ids = [*question.prompt.engine_prompt_ids, *question.asked]
        whole = encoder.tokenizer(encoder.render(turns), add_special_tokens=False)["input_ids"]
        # White space between a role and what it says is the template's.
        assert "".join(encoder.decode(ids).split()) == "".join(encoder.decode(whole).split())


def test_responses_to_a_prompt_differ_behind_it_alone(encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        example = _trained_on(encoder, _instruction(prompt))
        (length,) = {s.prompt_len for s in example.sequences}
        assert len({s.input_ids[:length].tobytes() for s in example.sequences}) == 1
        assert length == len(encoder.encode(prompt).prompt_ids)


def test_a_prompt_that_holds_the_mark_of_the_response_is_asked_all_the_same(encoder: PromptEncoder) -> None:
    def asked(words: str) -> tuple[int, ...]:
        (prompt,) = [Prompt(uid="a", messages=(_turn("user", words),), media=())]
        return CritiqueFormat(encoder, _REQUEST).ask(prompt, "two").asked

    assert asked("which @@response@@ ?") == asked("which ?")


def _turn(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": words}]}


_LAST_TURN_ONLY = (
    "{% set m = messages[-1] %}{{ m.role }} : {% for c in m.content %}{{ c.text }}{% endfor %} assistant : "
)
_THINKS = (
    "{% for m in messages %}{{ m.role }} : {{ m.content[0].text }} {% endfor %}"
    "{% if add_generation_prompt %}assistant : <think> {% endif %}"
)
_ONE_QUESTION = (
    "{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}"
    "user : {{ messages[0].content[0].text }} assistant : "
)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (_LAST_TURN_ONLY, "request for a critique: the chat template leaves out words of turn 1, 'which \\?'$"),
        (_THINKS, "request for a critique$"),
        (_ONE_QUESTION, "request for a critique: one question only$"),
    ],
    ids=["forgets", "begins-turns-otherwise", "raises"],
)
def test_a_template_that_cannot_go_on_behind_a_response_is_refused(template: str, told: str, tmp_path: Path) -> None:
    encoder = PromptEncoder(TINY_MODELS["llava"](tmp_path / "model"))
    encoder.processor.chat_template = template
    prompt = Prompt(uid="a", messages=(_turn("user", "which ?"),), media=())
    assert encoder.encode(prompt).prompt_ids
    with pytest.raises(ValueError, match=f"^its chat template cannot go on behind a response with the {told}"):
        CritiqueFormat(encoder, _REQUEST).ask(prompt, "two")


def test_a_model_without_turns_is_refused(tmp_path: Path) -> None:
    encoder = PromptEncoder(TINY_MODELS["instructblip"](tmp_path / "model"))
    prompt = Prompt(uid="a", messages=(_turn("user", "which ?"),), media=())
    with pytest.raises(ValueError, match=r"^instructblip has no chat template: it answers one question and no more$"):
        CritiqueFormat(encoder, _REQUEST).ask(prompt, "two")


def test_responses_of_the_same_tokens_make_no_pair_whatever_their_critiques(tmp_path: Path) -> None:
    encoder = PromptEncoder(build_digits_model(tmp_path / "model", seed=0))
    said = (("one qqq", "the image"), ("one www", "response one"), ("two", "so"))  # words that it does not know
    ranked = tuple(Response(text=t, critique=c, rank=rank) for rank, (t, c) in enumerate(said, start=1))
    turns = (_turn("user", "which ?"),)
    row = Instruction(uid="a", split="train", messages=turns, media=(), responses=ranked)
    assert _trained_on(encoder, row).pairs == ((0, 2), (1, 2))
