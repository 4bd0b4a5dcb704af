"""Which response plain English decides for."""

import asyncio

import pytest

from remote_rm.judges.rules import RulesJudge, conclusion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the image shows eight . response 2 says eight .", "2"),
        ("Response 1 is better.", "1"),
        ("I prefer the second response", "2"),
        ("So the first one wins.", "1"),
        ("response 1 says four . response 2 says eight .", "2"),
        ("Response 2 is good. Therefore, response 1 is better overall.", "1"),
        ("Response 1 is better than response 2.", "1"),
        ("Response 1 is better because response 2 misses the point.", "1"),
        ("While response 1 is detailed, response 2 is more accurate.", "2"),
        ("Compared to response 1, response 2 is clearer.", "2"),
        ("I choose response 2 over response 1.", "2"),
        ("Response 2 is wrong.", "1"),
        ("Response 1 isn't right.", "2"),
        ("Response 2 is not wrong.", "2"),
        ("Response 2 is better, not response 1.", "2"),
        ("Response 1 is good but response 2 is better", "2"),
        ("Both responses are good.", "both"),
        ("Response 1 is better. Both are fine.", "both"),
        ("Responses 1 and 2 are fine.", "both"),
        ("Response 1 and response 2 agree.", "both"),
        ("Neither is right.", "both"),
        ("Response 1 and 2 are equally good.", "both"),
        ("It is a tie.", "both"),
        ("Response 1 beats response 2.", "both"),
        ("Response 1 names both cats.", "1"),
        ("The image shows a 2.", None),
        ("Response 12 is better.", None),
        ("", None),
    ],
)
def test_conclusion(text: str, expected: str | None) -> None:
    assert conclusion(text) == expected


@pytest.mark.parametrize(
    ("tail", "answer", "verdict"),
    [
        ("response 2 says eight .", "Response 2 is better.", "consistent"),
        ("response 1 says eight .", "Response 2 is better.", "inconsistent"),
        ("both responses say eight .", "Response 2 is better.", "inconsistent"),
        ("both responses say eight .", "both responses are good", "inconsistent"),
        ("the image shows eight .", "Response 2 is better.", "unknown"),
        ("response 2 says eight .", "three", "unknown"),
    ],
)
def test_verdict(tail: str, answer: str, verdict: str) -> None:
    assert asyncio.run(RulesJudge().judge(tail, answer)).verdict == verdict
