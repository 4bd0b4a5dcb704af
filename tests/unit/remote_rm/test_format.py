"""Exactly one think block, then one answer block, both with something in them."""

import pytest

from remote_rm.parts import format_score


@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think><answer>1</answer>",
        "<think> the image shows eight . </think> <answer> 2 </answer>",
        "\n<think>\na\n</think>\n\n<answer>\n1\n</answer>\n",
        "<think>a < b, <b>bold</b></think><answer>anything</answer>",
    ],
)
def test_well_formed(response: str) -> None:
    assert format_score(response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "1",
        "<answer>1</answer>",
        "<think>a</think>",
        "<think></think><answer>1</answer>",
        "<think> \n </think><answer>1</answer>",
        "<think>a</think><answer> </answer>",
        "so <think>a</think><answer>1</answer>",
        "<think>a</think> so <answer>1</answer>",
        "<think>a</think><answer>1</answer> so",
        "<think>a</think><answer>1</answer><answer>1</answer>",
        "<think>a</think></think><answer>1</answer>",
        "<think>a</think><answer>1</answer></answer>",
        "<think><think>a</think><answer>1</answer>",
        "<answer>1</answer><think>a</think>",
        "<THINK>a</THINK><ANSWER>1</ANSWER>",
        "<think>a<answer>1</answer></think>",
    ],
)
def test_malformed(response: str) -> None:
    assert format_score(response) == 0.0
