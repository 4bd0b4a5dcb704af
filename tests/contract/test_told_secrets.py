"""A token that a reward service repeats is in no reason, also where the reason is cut in the middle of it."""

import base64
import json
from urllib.parse import quote

import pytest

from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.replies import read_rewards
from orchestrator.rewards.reward import RewardItem, one_line
from tests.contract.test_reward_answers import Answer, answering, send

_TOKEN = "sesame-open-sesame"


def _details(answer: Answer, *items: RewardItem) -> list[str]:
    with answering(answer) as (url, _):
        client = RewardClient(lambda _=None: url, timeout_s=5.0, max_outage_s=1.0, token=_TOKEN)
        found = client.post(items).result()
        client.close()
    return [str(found[item.id].detail) for item in items]


def _item(label: str | None = "1") -> RewardItem:
    return RewardItem(uid="p", sample_index=0, prompt="", response="r", label=label, media=())


@pytest.mark.parametrize("before", range(150, 301, 25))
def test_a_piece_of_the_token_is_not_told_either(before: int) -> None:
    words = "x" * before + _TOKEN
    failed = {"id": "p/0", "reward": None, "status": "failed", "detail": words}
    for status, body in (
        (401, words),
        (200, words),
        (200, json.dumps({"error": words})),
        (200, json.dumps({"items": [failed]})),
        (200, json.dumps({"items": [failed | {"status": words}]})),
        (200, json.dumps({"items": [failed | {"id": words}]})),
    ):
        (detail,) = _details(lambda handler, _, b=body, s=status: send(handler, b.encode(), status=s), _item())
        assert "ses" not in detail.replace("left this item", ""), detail


@pytest.mark.parametrize(
    "written",
    [
        quote(_TOKEN, safe="").replace("-", "%2D"),
        "".join(f"\\u{ord(letter):04x}" for letter in _TOKEN),
        "".join(f"&#{ord(letter)};" for letter in _TOKEN),
        base64.b64encode(f"Bearer {_TOKEN}".encode()).decode(),
        _TOKEN.encode().hex().upper(),
        _TOKEN[:6] + quote(_TOKEN[6:], safe="").replace("-", "%2d"),
    ],
)
def test_a_token_is_not_told_however_it_is_written(written: str) -> None:
    (detail,) = _details(lambda handler, _: send(handler, f"no: {written}".encode(), status=401), _item())
    assert written[4:12] not in detail and "***" in detail


def test_half_a_character_in_a_label_fails_its_item() -> None:
    (detail,) = _details(lambda handler, _: send(handler, b"{}"), _item(label="\ud800"))
    assert detail == "the label holds U+D800 at character 0, half of a character"


def test_words_are_shown_as_told() -> None:
    found = read_rewards(b"a b", ["x"], told=lambda words: one_line(words).upper())
    assert found["x"].detail == "the service answered what is not JSON: 'A B'"
