"""Which prompts a sync is proved with."""

from orchestrator.training.answering import probed
from workers.types import MediaRef, Prompt


def _prompt(uid: str, *, with_image: bool) -> Prompt:
    media = (MediaRef(path=f"{uid}.png", sha256="0" * 64, width=8, height=8),) if with_image else ()
    return Prompt(uid=uid, messages=(), media=media)


_TRAIN = [_prompt(f"{kind}{n}", with_image=kind == "img") for n in range(3) for kind in ("img", "txt")]


def _names(seen: list[str], count: int) -> list[str]:
    return [prompt.uid for prompt in probed(_TRAIN, seen, count)]


def test_of_a_mixed_step_the_one_with_an_image_is_the_probe() -> None:
    assert _names(["img0", "txt0"], 1) == ["img0"]
    assert _names(["txt1", "img0", "txt0"], 2) == ["img0", "txt0"]


def test_of_several_the_last_seen_is_the_probe_and_each_once() -> None:
    assert _names(["img0", "img1", "txt0"], 1) == ["img1"]
    assert _names(["img0", "img1", "img0~1"], 2) == ["img0", "img1"]
    assert _names(["txt0", "txt1"], 1) == ["txt1"]


def test_a_prompt_that_stands_in_its_batch_twice_is_known_by_its_other_name() -> None:
    assert _names(["img2~1"], 1) == ["img2"]
    assert _names([], 1) == []
