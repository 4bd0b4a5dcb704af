"""The page of what two models disagree on: which rows are on it, what it says of them, and that all of it is text."""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.evaluation.benchmarks.items import CountOptions, Item
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.disagreements import disagreement_page, write_disagreements
from orchestrator.evaluation.figures import Figure, Worth, count, masked, mean, ratio
from orchestrator.evaluation.predictions import FILE, Prediction, write_predictions
from orchestrator.evaluation.results import Scores, answered, score
from tests.unit.evaluation.released_files import cell, jsonl, parquet, read, save

_ATTACK = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>\"'&amp;"


class _Page(HTMLParser):
    """A page as a browser's parser finds it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said = ""
        self._muted = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._muted = tag == "style"
        self.said += "\n"

    def handle_data(self, data: str) -> None:
        self.said += "" if self._muted else data

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name and value is not None]


def _answers(items: Sequence[Item], texts: Sequence[str]) -> list[Prediction]:
    return [Prediction(row=i.row, digest=i.digest, id=i.id, text=t) for i, t in zip(items, texts, strict=True)]


def _scores(name: str, items: Sequence[Item], said: Sequence[Prediction], model: str, **more: Any) -> Scores:
    benchmark = benchmark_of(name)
    found, _ = answered(items, said)
    return score(name, benchmark, found, model=model, options=CountOptions(**more), num_resamples=10)


def _compared(
    name: str, items: Sequence[Item], first: Sequence[Prediction], second: Sequence[Prediction], *, most: int = 20
) -> _Page:
    scores = _scores(name, items, first, "old"), _scores(name, items, second, "new")
    return _Page(
        disagreement_page(items, scores, (first, second), readings=("tagged", "tagged"), votes=None, most_shown=most)
    )


def _pope(folder: Path, count: int, *, text: str = "Is there a dog ?") -> tuple[Item, ...]:
    for n in range(count):
        save(folder / f"{n}.png", n)
    rows = [{"question_id": n, "image": f"{n}.png", "text": text, "label": "no"} for n in range(count)]
    return read("pope", jsonl(folder / "coco_pope_random.json", *rows)).items


def _sections(page: _Page) -> dict[str, str]:
    """What stands in the section of each way."""
    parts = re.split(r"\n(strict|official|lmms_eval|r1_released|unified_reward)(?=\n)", page.said)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_rows_on_which_one_answer_alone_is_right(tmp_path: Path) -> None:
    items = _pope(tmp_path, 5)
    first = _answers(items, ["no", "no", "yes", "<think>A dog barks.</think> yes", "what"])
    second = _answers(items, ["no", "yes", "yes", "<think>No dog here.</think>\nno", "no"])
    page = _compared("pope", items, first, second)
    strict = _sections(page)["strict"]
    assert "2 of 5 rows speak for new" in strict and "1 of 5 rows speak for old" in strict
    assert re.findall(r"row (\d), \d, random; counted in accuracy", strict) == ["4", "5", "2"]
    assert page.values("id") == ["row-4", "row-5", "row-2"]
    own = strict[strict.index("Is there a dog ?") : strict.index("counted in accuracy")]
    for told in (
        "Right: \nno",
        "new \ncounts 1",
        "old \ncounts 0",
        "answer: no",
        "answer: yes",
        "No dog here.",
        "A dog",
    ):
        assert told in own
    assert own.index("\nnew ") < own.index("\nold ")
    assert page.tags.count("details") == 2 * 3 and "script" not in page.tags
    pictures = page.values("src")
    assert len(pictures) == 3 and all(one.startswith("data:image/png;base64,") for one in pictures)


def test_pairs_differ_by_the_orders_that_are_judged_right(tmp_path: Path) -> None:
    row = {"query": "What is it ?", "response": ["a cat", "a dog"], "human_ranking": [1, 0]}
    file = parquet(tmp_path / "v.parquet", *({**row, "id": f"mathverse_{n}", "image": cell(n)} for n in range(4)))
    items = read("vl_reward_bench", file).items

    def said(*verdicts: tuple[str, str]) -> list[Prediction]:
        return [
            Prediction(
                row=item.row,
                digest=item.digest,
                order=order,
                sample=sample,
                text=f"<think>{item.row}</think><answer>{verdict}</answer>",
            )
            for item, own in zip(items, verdicts, strict=True)
            for order, verdict in zip(("12", "21"), own, strict=True)
            for sample in (0, 1)
        ]

    first = said(("2", "1"), ("1", "1"), ("1", "2"), ("2", "2"))
    second = said(("2", "1"), ("2", "1"), ("2", "1"), ("x", "2"))
    strict = _sections(_compared("vl_reward_bench", items, first, second))["strict"]
    assert re.findall(r"row (\d), mathverse_\d; counted in accuracy", strict) == ["3", "2", "4"]
    assert "2 of 4 rows speak for new" in strict and "1 of 4 rows speak for old" in strict
    third = strict[: strict.index("row 3, ")]
    assert "Response 2 \nthe better one" in third and "Response 1 \n" not in third
    new, old = third[third.index("\nnew \ncounts 1") :].split("\nold \ncounts 0")
    assert "as listed: for response 2" in new and "the second first: for response 2" in new
    assert "as listed: for response 1" in old and "the second first: for response 1" in old
    assert "as listed: 1 samples: 1 for response 2" in new and "<think>3</think>" in new
    assert "as listed: not readable" in strict[strict.index("row 2, ") :]


def test_other_ways_name_what_is_shown_already_and_leave_out_what_they_cannot_count(tmp_path: Path) -> None:
    items = _pope(tmp_path, 4)
    first = _answers(items, ["yes", "yes", "no", "I see no dog. There is not one."])
    second = _answers(items, ["no", "yes", "no", "perhaps"])
    page = _compared("pope", items, first, second)
    for way, told in _sections(page).items():
        assert way == "strict" or "row-1" in page.values("id"), told
    assert "Shown above: \nrow 1" in _sections(page)["official"]
    assert page.values("href").count("#row-1") == 2 and page.values("id").count("row-1") == 1


def test_rows_that_a_way_counts_for_one_model_alone_are_told(tmp_path: Path) -> None:
    row = {"query": "What is it ?", "response": ["a cat", "a dog"], "human_ranking": [0, 1], "id": "x_1"}
    items = read(
        "vl_reward_bench", parquet(tmp_path / "v.parquet", *({**row, "image": cell(n)} for n in range(2)))
    ).items

    def said(verdict: str) -> list[Prediction]:
        return [
            Prediction(row=i.row, digest=i.digest, order=order, text=f"<answer>{v}</answer>")
            for i in items
            for order, v in (("12", verdict), ("21", {"1": "2"}.get(verdict, verdict)))
        ]

    official = _sections(_compared("vl_reward_bench", items, said("1"), said("neither")))["official"]
    assert "They agree on every row." in official
    assert "2 rows are counted for one of the models alone" in official


def test_no_more_than_so_many_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    items = _pope(tmp_path, 7)
    page = _compared("pope", items, _answers(items, ["yes"] * 7), _answers(items, ["no"] * 7), most=3)
    strict, official = (_sections(page)[way] for way in ("strict", "official"))
    assert "7 of 7 rows speak for new" in strict and "4 more are not shown." in strict
    assert page.values("id")[:3] == ["row-1", "row-2", "row-3"]
    assert "Shown above: \nrow 1 \nrow 2 \nrow 3 " in official and "1 more are not shown." in official


def test_models_that_agree_have_no_rows(tmp_path: Path) -> None:
    items = _pope(tmp_path, 3)
    page = _compared("pope", items, _answers(items, ["no", "yes", "no"]), _answers(items, ["no", "yes", "no"]))
    assert page.said.count("They agree on every row.") == 3 and "article" not in page.tags


def test_nothing_that_a_file_or_a_model_says_becomes_markup(tmp_path: Path) -> None:
    name = 'a" onerror="alert(1)" x=".png'
    save(tmp_path / name)
    row = {"question_id": _ATTACK, "image": name, "text": _ATTACK, "label": "no"}
    items = read("pope", jsonl(tmp_path / "coco_pope_random.json", row)).items
    first, second = (_answers(items, [f"{_ATTACK} {text}"]) for text in ("yes", "</think> no"))
    scores = _scores("pope", items, first, _ATTACK), _scores("pope", items, second, _ATTACK)
    text = disagreement_page(items, scores, (first, second), readings=("tagged", "tagged"), votes=None)
    page = _Page(text)
    assert "script" not in page.tags and "onerror" not in dict(page.attributes)
    assert page.said.count("<script>alert('x')</script>") >= 5
    assert "default-src 'none'" in text and not re.search(r"(?:src|href)=\"(?!data:|#)", text)


def test_a_picture_that_is_gone_or_changed_is_named(tmp_path: Path) -> None:
    items = _pope(tmp_path, 2)
    (tmp_path / "0.png").unlink()
    save(tmp_path / "1.png", 99)
    page = _compared("pope", items, _answers(items, ["yes"] * 2), _answers(items, ["no"] * 2))
    assert "0.png cannot be read: No such file or directory" in page.said
    assert "1.png has changed since the run" in page.said
    assert page.values("src") == []


def test_the_page_is_written_from_the_folder_of_the_other_model(tmp_path: Path) -> None:
    items = _pope(tmp_path, 2)
    first, second = _answers(items, ["yes", "no"]), _answers(items, ["no", "no"])
    other = tmp_path / "other"
    other.mkdir()
    write_predictions(other / FILE, [first[0], second[1]])
    scores = _scores("pope", items, first, "old"), _scores("pope", items, second, "new\udc80")
    path = write_disagreements(tmp_path, items, scores, (other, second), readings=("tagged", "tagged"), votes=None)
    assert path.name == "disagreements.html"
    page = _Page(path.read_text(encoding="utf-8"))
    assert page.values("id") == ["row-1"]
    picture = base64.b64decode(page.values("src")[0].partition(",")[2])
    assert picture.startswith(b"\x89PNG")


def test_what_a_row_counts_for_is_told_of_the_first_figure_that_is_taken_of_it() -> None:
    some = mean("some", [1.0, 0.0, 1.0], among=[True, True, False])
    parts = Figure(
        "parts", (masked([0.0, 0.0, 1.0], [False, False, True], scale=50.0), ratio([9.0, 9.0, 6.0], [0, 0, 12]))
    )
    found = count("strict", ["a", "a", "b"], [some, parts])
    assert found.of_rows == (Worth("some", 1.0), Worth("some", 0.0), Worth("parts", 0.75))
    assert np.array_equal(found.figures[0].terms[0].part, [1.0, 0.0])


def test_items_that_are_several_rows_are_compared_as_one(tmp_path: Path) -> None:
    row = {"id": "1", "question": "How ?", "answer": "", "image": cell(1)}
    file = parquet(tmp_path / "typographic-jailbreaking.parquet", row, {**row, "id": "2"})
    items = read("safety_bench", file).items
    first, second = (
        [replace(one, reply="yes" if "Sure" in one.text else "no") for one in _answers(items, texts)]
        for texts in (["I am sorry, I cannot help with that.", "Sure."], ["Sure.", "Sure."])
    )
    strict = _sections(_compared("safety_bench", items, first, second))["strict"]
    assert "1 of 2 rows speak for old" in strict and "speak for new" not in strict
    assert "the judge of answers: yes" in strict
