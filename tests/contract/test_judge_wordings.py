"""Refusals and replies in the words of real endpoints: what may go is found, and no verdict is read from noise."""

import asyncio
import json
from typing import Any

import pytest

from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.protocol import JudgeError, Judgement
from remote_rm.judges.request import ROOM
from remote_rm.judges.words import COMPAT, STRICT, Manner
from tests.contract.fake_judge import Behaviour, Body, Depends, Say, fake_judge

_KEY = "sk-very-secret"
_EXTRA = "Extra inputs are not permitted"
_REFUSALS: dict[str, tuple[str, int, Any]] = {
    # Name: the parameter that is refused, with which status, in which body.
    "OpenAI, max_tokens": (
        "max_tokens",
        400,
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "type": "invalid_request_error",
                "param": "max_tokens",
                "code": "unsupported_parameter",
            }
        },
    ),
    "OpenAI, temperature": (
        "temperature",
        400,
        {
            "error": {
                "message": "Unsupported value: 'temperature' does not support 0.0 with this model. "
                "Only the default (1) value is supported.",
                "param": "temperature",
                "code": "unsupported_value",
            }
        },
    ),
    "OpenAI, unknown": (
        "structured_outputs",
        400,
        {"error": {"message": "Unrecognized request argument supplied: structured_outputs", "param": None}},
    ),
    "Gemini": (
        "structured_outputs",
        400,
        [{"error": {"code": 400, "message": 'Unknown name "structured_outputs": Cannot find field.'}}],
    ),
    "Groq": ("structured_outputs", 400, {"error": {"message": "property 'structured_outputs' is unsupported"}}),
    "FastAPI": (
        "structured_outputs",
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "structured_outputs"], "msg": _EXTRA}]},
    ),
    "vLLM": (
        "structured_outputs",
        400,
        {"object": "error", "message": f"[{{'loc': ('body', 'structured_outputs'), 'msg': '{_EXTRA}'}}]", "code": 400},
    ),
    "serde": (
        "structured_outputs",
        422,
        {"error": "unknown field `structured_outputs`, expected one of `messages`, `max_tokens`, `temperature`"},
    ),
    "camel case": ("structured_outputs", 400, {"error": {"message": "Unknown field structuredOutputs"}}),
    "words": ("structured_outputs", 400, {"error": "Structured outputs are not supported by this model"}),
    "only what is taken": (
        "structured_outputs",
        400,
        {"error": {"message": "Unknown parameter. Known are: model, messages, max_tokens, temperature"}},
    ),
    "a path": ("structured_outputs", 400, {"error": {"message": "no", "param": "structured_outputs.choice"}}),
    "a router": ("structured_outputs", 404, {"error": {"message": "No endpoint supports structured_outputs"}}),
}


def _ask(*script: Behaviour, manner: Manner = STRICT) -> tuple[Judgement, list[dict[str, Any]]]:
    async def run(url: str) -> Judgement:
        judge = OpenAiJudge(url, "m", api_key=_KEY, timeout_s=5.0, manner=manner)
        try:
            return await judge.judge("a", "1")
        finally:
            await judge.close()

    with fake_judge(*script) as fake:
        return asyncio.run(run(fake.url)), fake.requests


@pytest.mark.parametrize("name", _REFUSALS)
def test_what_an_endpoint_refuses_in_its_own_words_is_left_out(name: str) -> None:
    refused, status, body = _REFUSALS[name]
    refusal = Body(json.dumps(body).encode(), status)
    judgement, requests = _ask(Depends(lambda request: refusal if refused in request else Say("1")))
    assert judgement.verdict == "consistent"
    assert refused not in requests[-1]


def test_what_is_named_beside_the_refused_parameter_is_kept() -> None:
    _, _, body = _REFUSALS["serde"]
    refusal = Body(json.dumps(body).encode(), 422)
    _, requests = _ask(Depends(lambda request: refusal if "structured_outputs" in request else Say("1")))
    assert len(requests) == 2
    assert requests[1]["max_tokens"] == ROOM and requests[1]["temperature"] == 0.0


@pytest.mark.parametrize(
    "told",
    [
        "Could not finish the message because max_tokens or model output limit was reached. Please try again.",
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
        "max_tokens must be at least 16",
    ],
)
def test_a_bound_that_is_too_low_is_raised_and_not_given_up(told: str) -> None:
    refusal = Body(json.dumps({"error": {"message": told}}).encode(), 400)
    judgement, requests = _ask(Depends(lambda request: refusal if request["max_tokens"] == 1 else Say("1")))
    assert judgement.verdict == "consistent"
    assert [request["max_tokens"] for request in requests] == [1, ROOM]
    assert "structured_outputs" in requests[1]


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502 at 10.0.0.1</html>",
        b'data: {"choices": [{"delta": {"content": "1"}}]}\n\ndata: [DONE]\n\n',
        rb'{"choices": [{"message": {"content": "1\ud800"}}]}',
        b'{"choices": [], "created": 1700000000}',
        b"1",
        b"0",
    ],
)
@pytest.mark.parametrize("manner", [STRICT, COMPAT], ids=["strict", "compat"])
def test_no_verdict_is_read_from_what_is_no_reply(body: bytes, manner: Manner) -> None:
    judgement, requests = _ask(Body(body), manner=manner)
    assert judgement.verdict == "unknown"
    assert len(requests) == manner.most_asks


@pytest.mark.parametrize(
    "behaviour",
    [
        Say(f"your key is {_KEY}"),
        Body(f"<html>{_KEY}</html>".encode()),
        # Where a line is cut in the middle of the key.
        *(Say("x" * before + _KEY) for before in (186, 190, 195)),
        *(Body(b"x" * before + _KEY.encode()) for before in (166, 170, 175)),
    ],
    ids=repr,
)
def test_a_judge_that_says_the_key_does_not_get_it_told(behaviour: Behaviour) -> None:
    judgement, _ = _ask(behaviour)
    assert "sk-" not in judgement.raw


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize("before", range(150, 200, 7))
def test_nor_a_piece_of_it_in_an_error(status: int, before: int) -> None:
    body = json.dumps({"error": {"message": "x" * before + _KEY, "code": "9" * 5000}})
    with pytest.raises(JudgeError) as failed:
        _ask(Body(body.encode(), status))
    assert "sk-" not in str(failed.value) and len(str(failed.value)) < 300
