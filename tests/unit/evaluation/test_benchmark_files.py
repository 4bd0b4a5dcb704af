"""Each benchmark is read as it is released: every layout that people have of it, and what is wrong with a row of it."""

import base64
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions, asked_of
from orchestrator.evaluation.benchmarks.files import Items
from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.evaluation.benchmarks.registry import BENCHMARKS, benchmark_of, holdings
from tests.unit.evaluation.released_files import cell, jsonl, parquet, png, read, save, text_png, tsv, whole


def _all(items: Items) -> tuple[Item, ...]:
    assert not items.bad_rows, items.bad_rows
    return items.items


def _one(items: Items) -> Item:
    (item,) = _all(items)
    return item


def _words(parts: tuple[dict[str, str], ...]) -> str:
    return "".join(part.get("text", "[image]") for part in parts)


def test_every_module_is_a_benchmark() -> None:
    for name in BENCHMARKS:
        found = benchmark_of(name)
        assert found.ways[0] == "strict"
    with pytest.raises(RefusedInput, match=r"benchmark = 'popes': expected one of judgements, "):
        benchmark_of("popes")


def test_judgements_as_they_are_released_and_as_they_are_made(tmp_path: Path) -> None:
    def message(*parts: dict[str, str], before: tuple[dict[str, str], ...] = ()) -> str:
        return json.dumps([*before, {"role": "user", "content": list(parts)}])

    words, named = {"type": "text", "text": "which ?"}, {"type": "image", "image": "/their/disk/0.jpg"}
    brief = {"role": "system", "content": "Be brief."}
    released = {"question": "q", "message": message(words, named), "answer": ["<answer>2</answer>"]}
    file = parquet(
        tmp_path / "r.parquet",
        {**released, "image": text_png(7), "id": None},
        {**released, "image": text_png(8), "id": "d-000001:1>2:0123:2"},
        {**released, "image": text_png(8), "answer": ["<answer>3</answer>"]},
        {**released, "image": text_png(8), "message": message(words, before=(brief,))},
    )
    found = read("judgements", file)
    first, second = found.items
    assert (first.truths, first.responses, first.group, second.group) == (("2",), (), "", "d-000001:1>2:0123")
    assert [part["type"] for part in first.question] == ["text", "image"]
    assert Path(first.media[0].path).read_bytes() == png(7) and Path(second.media[0].path).read_bytes() == png(8)
    (asked,) = asked_of(first, "verdict", AskOptions(request="{question}{first}{second}", samples=2))
    assert (asked.order, asked.samples, asked.prompt.messages[0]["content"]) == (
        "12", (0, 1, 2), [{"type": "text", "text": "which ?"}, {"type": "image"}]
    )  # fmt: skip
    assert [bad.reason for bad in found.bad_rows] == [
        "field 'answer' is \"<answer>3</answer>\", expected 1 or 2",
        "field 'message' has the turns system, user, expected one of the user",
    ]


# -- pairs -----------------------------------------------------------------------------------------------------------

_HF = {"id": "RLAIF-V-1", "query": "What is it ?", "response": ["a cat", "a dog"], "models": ["m", "n"], "judge": "j"}


@pytest.mark.parametrize("layout", ["parquet", "tsv", "jsonl"])
def test_vl_reward_bench(layout: str, tmp_path: Path) -> None:
    if layout == "parquet":
        file = parquet(tmp_path / "t.parquet", {**_HF, "image": cell(1), "human_ranking": [1, 0], "meta": None})
    elif layout == "tsv":
        row = {"index": 7, "question": "What is it ?", "response": "['a cat', 'a dog']", "answer": "[1, 0]"}
        file = tsv(tmp_path / "t.tsv", {**row, "category": "hallucination", "image": text_png(1)})
    else:
        save(tmp_path / "img" / "a.png")
        row = {"id": "RLAIF-V-1", "prompt": "What is it ?", "image": "img/a.png", "chosen_reason": ""}
        file = jsonl(tmp_path / "t.jsonl", {**row, "chosen": "a dog", "rejected": "a cat"})
    item = _one(read("vl_reward_bench", file))
    assert _words(item.question) == "[image]What is it ?"
    assert item.responses[int(item.truths[0]) - 1] == ({"type": "text", "text": "a dog"},)
    assert item.id == ("7" if layout == "tsv" else "RLAIF-V-1")
    assert item.category == ("hallucination" if layout == "tsv" else "")
    assert (item.media[0].width, item.media[0].height) == (12, 10)


def test_mm_rlhf_reward_bench_with_an_image_and_a_video(tmp_path: Path) -> None:
    save(tmp_path / "short" / "belong.png")
    for number in (10, 2, 1):
        save(tmp_path / "video" / "v" / f"{number}.png", number)
    pair = {"prompt": "<image>\nWhat ?", "chosen": "a", "rejected": "b", "chosen_reason": "r", "rejected_reason": "r"}
    file = jsonl(
        tmp_path / "b.jsonl",
        {"id": "q", "image": "short/belong.png", **pair},
        {"id": "q", "video": "video/v", **pair},
    )
    image, video = _all(read("mm_rlhf_reward_bench", file))
    assert _words(image.question) == "[image]What ?"
    assert (image.meta["media"], image.group, image.truths) == ("short/belong.png", "q", ("1",))
    assert [Path(ref.path).name for ref in video.media] == ["1.png", "2.png", "10.png"]
    assert image.key != video.key


def test_multimodal_reward_bench(tmp_path: Path) -> None:
    save(tmp_path / "i.png")
    row = {"ID": "pairs_1", "Text": "What ?", "Image": "i.png", "Output1": "a", "Output2": "b", "Category": "safety"}
    item = _one(read("multimodal_reward_bench", whole(tmp_path / "all_data.json", [{**row, "Better": "Output2"}])))
    assert (item.id, item.category, item.truths, _words(item.responses[1])) == ("pairs_1", "safety", ("2",), "b")
    bad = whole(tmp_path / "b.json", [{**row, "Better": "Output2"}, {**row, "Better": "Output1", "Text": ""}])
    (left_out,) = read("multimodal_reward_bench", bad).bad_rows
    assert (left_out.row, left_out.reason) == (2, "field 'Text' is missing or empty, expected text")


def test_multimodal_reward_bench_2_has_images_in_its_responses(tmp_path: Path) -> None:
    row = {
        "pair_id": "p1",
        "prompt_text": "Draw <image_1> again.",
        "prompt_images": [cell(1)],
        "response_a_text": "first <image_2> then <image_1>",
        "response_a_images": [cell(2), cell(3)],
        "response_b_text": "",
        "response_b_images": [cell(4)],
        "response_a_model": "m",
        "chosen": "b",
        "prompt_metadata": "{}",
    }
    item = _one(read("multimodal_reward_bench_2", parquet(tmp_path / "interleaved" / "test-0.parquet", row)))
    assert [_words(own) for own in (item.question, *item.responses)] == [
        "Draw [image] again.",
        "first [image] then [image]",
        "[image]",
    ]
    assert (item.category, item.truths, len(item.media)) == ("interleaved", ("2",), 4)
    # Those of a response are in the order of its words: the second, then the first.
    assert item.media[1].sha256 != item.media[2].sha256 and [Path(m.path).read_bytes() for m in item.media[1:3]] == [
        png(3),
        png(2),
    ]


def test_multimodal_reward_bench_2_from_json(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    pair = {
        "id": "p1",
        "prompt_content": [["text", "Edit"], ["image", "a.png"]],
        "response_a": {"model_name": "m", "response_content": [["image", "a.png"], ["text", "done"]]},
        "response_b": {"model_name": "n", "response_content": [["text", "no"]]},
        "chosen": "A",
    }
    item = _one(read("multimodal_reward_bench_2", whole(tmp_path / "edit.json", {"pairs": [pair]})))
    assert [_words(own) for own in (item.question, *item.responses)] == ["Edit[image]", "[image]done", "no"]
    items = read("multimodal_reward_bench_2", whole(tmp_path / "edit.json", {"pairs": [pair, {**pair, "chosen": "C"}]}))
    assert items.bad_rows[0].reason == "field 'chosen' is \"C\", expected A or B"
    with pytest.raises(RefusedInput, match=r"names one of t2i, edit, interleaved, reasoning"):
        read("multimodal_reward_bench_2", whole(tmp_path / "other.json", {"pairs": [pair]}))


def test_reward_bench_2(tmp_path: Path) -> None:
    best = {"id": "7", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math", "num_correct": 1}
    tie = {"id": "tied:3", "prompt": "q", "chosen": ["a", "b"], "rejected": ["c"], "subset": "Ties", "num_correct": 2}
    file = parquet(tmp_path / "t.parquet", best, tie, {**tie, "id": "3"}, {**best, "subset": "Maths"})
    items = read("reward_bench_2", file)
    assert [(i.category, i.group, len(i.responses), i.meta) for i in items.items] == [
        ("Math", "", 4, {"num_correct": 1}),
        ("Ties", "3", 3, {"num_correct": 2}),
    ]
    assert [bad.row for bad in items.bad_rows] == [3, 4]


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["jsonl", "tsv", "parquet"])
def test_pope(layout: str, tmp_path: Path) -> None:
    if layout == "jsonl":
        save(tmp_path / "COCO_1.jpg")
        row = {"question_id": 1, "image": "COCO_1.jpg", "text": "Is there a dog ?", "label": "no"}
        file = jsonl(tmp_path / "coco_pope_popular.json", row)
    else:
        row = {"question_id": "1", "question": "Is there a dog ?", "answer": "No", "category": "popular"}
        make, image = (tsv, text_png(1)) if layout == "tsv" else (parquet, cell(1))
        file = make(tmp_path / f"p.{layout}", {"index": 1, **row, "image": image})
    item = _one(read("pope", file))
    assert (_words(item.question), item.truths, item.category) == ("[image]Is there a dog ?", ("no",), "popular")


def test_the_three_splits_of_pope_are_read_whole(tmp_path: Path) -> None:
    """As many rows as are released, half of 3,000 and 1,500 of 2,910 with yes; ids and images repeat."""
    save(tmp_path / "a.png")
    sizes = {"random": 2910, "popular": 3000, "adversarial": 3000}
    for split, size in sizes.items():
        labels = ["yes"] * 1500 + ["no"] * (size - 1500)
        rows = [{"question_id": i, "image": "a.png", "text": "Is it ?", "label": one} for i, one in enumerate(labels)]
        jsonl(tmp_path / f"coco_pope_{split}.json", *rows)
    items = _all(read("pope", tmp_path, root=tmp_path))
    assert Counter(item.category for item in items) == sizes
    assert Counter(item.truths for item in items) == {("yes",): 4500, ("no",): 4410}
    assert len({item.key for item in items}) == 8910


@pytest.mark.parametrize("layout", ["tsv", "parquet"])
def test_both_questions_of_an_image_of_mme(layout: str, tmp_path: Path) -> None:
    asked = [("Is it one ?", "Yes"), ("Is it two ?", "No")]
    if layout == "tsv":
        rows = [{"index": i, "question": q, "answer": a, "category": "count"} for i, (q, a) in enumerate(asked)]
        file = tsv(tmp_path / "MME.tsv", {**rows[0], "image": text_png(1)}, {**rows[1], "image": "0"})
    else:
        rows = [{"question_id": "count/1.png", "question": q, "answer": a, "category": "count"} for q, a in asked]
        file = parquet(tmp_path / "m.parquet", *({**row, "image": cell(1)} for row in rows))
    first, second = _all(read("mme", file))
    assert first.group == second.group != ""
    assert (first.truths, second.truths, first.category) == (("yes",), ("no",), "count")
    assert first.media == second.media


def test_mmbench(tmp_path: Path) -> None:
    row = {"question": "Which ?", "hint": "Look .", "A": "cat", "B": "dog", "C": "", "answer": "B", "category": "c"}
    rows = [{"index": index, **row, "l2-category": "l", "image": text_png(1)} for index in (7, 1_000_007)]
    first, rotated = _all(read("mmbench", tsv(tmp_path / "MMBench_DEV_EN.tsv", *rows)))
    assert first.options == {"A": "cat", "B": "dog"}
    assert (first.group, rotated.group, rotated.id) == ("7", "7", "1000007")
    assert _words(first.question).startswith("[image]Look . Which ? There are several options:\nA. cat\nB. dog\n")


@pytest.mark.parametrize("layout", ["parquet", "tsv"])
def test_mmmu(layout: str, tmp_path: Path) -> None:
    words = "Compare <image 2> with <image 1>."
    if layout == "parquet":
        row = {"id": "validation_Art_1", "question": words, "question_type": "multiple-choice", "answer": "B"}
        images = {"image_1": cell(1), "image_2": cell(2), "image_3": cell(3)}
        file = parquet(tmp_path / "t.parquet", {**row, **images, "options": "['it\\'s one', '<image 3>']"})
    else:
        row = {"index": 1, "question": words, "A": "it's one", "B": "<image 3>", "answer": "B", "category": "Art"}
        file = tsv(tmp_path / "MMMU_DEV_VAL.tsv", {**row, "image": str([text_png(shade) for shade in (1, 2, 3)])})
    item = _one(read("mmmu", file))
    assert item.options == {"A": "it's one", "B": "<image 3>"}
    assert _words(item.question).startswith(
        "Question: Compare [image] with [image].\nOptions:\nA. it's one\nB. [image]\nPlease select"
    )
    assert [Path(ref.path).read_bytes() for ref in item.media] == [png(2), png(1), png(3)]
    assert (item.truths, item.category) == (("B",), "Art")


def test_open_questions_of_mmmu_and_options_that_are_no_list(tmp_path: Path) -> None:
    row = {"id": "validation_Physics_3", "question": "How long ?", "question_type": "open", "image_1": cell(1)}
    rows = [
        {**row, "answer": "['3', 'three']", "options": "[]"},
        {**row, "answer": "3", "options": "[]"},
        {**row, "question_type": "multiple-choice", "answer": "A", "options": "__import__('os').listdir()"},
    ]
    items = read("mmmu", parquet(tmp_path / "t.parquet", *rows))
    assert [(item.truths, item.options) for item in items.items] == [(("3", "three"), {}), (("3",), {})]
    # An image that no mark names is shown first.
    assert _words(items.items[0].question) == "[image]Question: How long ?\n"
    assert items.bad_rows[0].reason == "field 'options' is \"__import__('os').listdir()\", expected a list"


def test_math_vista(tmp_path: Path) -> None:
    row = {
        "pid": "1", "question": "How many ?", "image": "images/1.jpg", "decoded_image": cell(1), "unit": None,
        "query": "Hint: count. How many ?", "question_type": "free_form", "answer_type": "float", "precision": 1.0,
        "metadata": {"task": "figure question answering", "skills": ["counting", "logic"], "grade": "daily"},
    }  # fmt: skip
    choice = {"question_type": "multi_choice", "answer_type": "text", "answer": "5", "choices": ["4", "5"]}
    rows = [{**row, "answer": "1.2", "choices": None}, {**row, **choice}, {**row, **choice, "answer": "6"}]
    items = read("math_vista", parquet(tmp_path / "t.parquet", *rows))
    free, chosen = items.items
    assert free.meta == {
        "answer_type": "float",
        "precision": 1,
        "groups": {"task": ["figure question answering"], "skills": ["counting", "logic"]},
    }
    assert _words(free.question) == "[image]Hint: count. How many ?"
    assert (chosen.options, chosen.truths) == ({"A": "4", "B": "5"}, ("5",))
    assert items.bad_rows[0].reason == "field 'answer' is \"6\", which is none of the choices"


@pytest.mark.parametrize("layout", ["tsv", "json"])
def test_seed_bench(layout: str, tmp_path: Path) -> None:
    if layout == "tsv":
        row = {"index": 1, "question": "Which ?", "A": "cat", "B": "dog", "C": "cow", "D": "ant", "answer": "B"}
        file = tsv(tmp_path / "s.tsv", {**row, "category": "Scene Understanding", "image": text_png(1)})
    else:
        save(tmp_path / "d1")
        row = {"question_id": 1, "question": "Which ?", "choice_a": "cat", "choice_b": "dog", "choice_c": "cow"}
        row |= {"choice_d": "ant", "answer": "B", "question_type_id": 1, "data_id": "d1", "data_type": "image"}
        video: dict[str, Any] = {**row, "question_type_id": 10, "data_type": "video"}
        file = whole(tmp_path / "SEED-Bench.json", {"questions": [row, video], "question_type": {}})
    item = _one(read("seed_bench", file))
    assert (item.options["D"], item.truths, item.category) == (
        "ant",
        ("B",),
        "Scene Understanding" if layout == "tsv" else "1",
    )


def test_mm_vet(tmp_path: Path) -> None:
    save(tmp_path / "v1_0.png")
    row = {"imagename": "v1_0.png", "question": "What is x ?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]}
    item = _one(read("mm_vet", whole(tmp_path / "mm-vet.json", {"v1_0": {**row, "imagesource": "s"}})))
    assert (item.id, item.truths, item.meta["capability"]) == ("v1_0", ("-1<AND>-5",), ["ocr", "math"])


def test_mmhal_and_llava_bench(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    hal = {"question_type": "attribute", "question_topic": "t", "image_id": "9", "image_src": "https://x/a.jpg"}
    hal |= {"image_content": ["Man", "Tree"], "question": "What ?", "gt_answer": "A man .", "model_answer": ""}
    item = _one(read("mmhal", whole(tmp_path / "h.json", [{**hal, "image_path": "a.jpg"}])))
    assert item.meta == {"question": "What ?", "gt_answer": "A man .", "image_content": ["Man", "Tree"]}
    asked = {"question_id": 1, "image": "a.jpg", "text": "Describe .", "category": "detail"}
    item = _one(read("llava_bench", jsonl(tmp_path / "q.jsonl", asked)))
    assert (item.category, _words(item.question)) == ("detail", "[image]Describe .")
    row = {"index": 1, "question": "Why ?", "gpt4_ans": "Because .", "category": "complex", "image": text_png(1)}
    assert _one(read("llava_bench", tsv(tmp_path / "l.tsv", row))).meta["reference"] == "Because ."


def test_safety_bench_tells_its_task_by_category_or_path(tmp_path: Path) -> None:
    row = {"question_id": "1", "question": "q", "answer": "Yes", "label": "l", "image": cell(1)}
    jail = parquet(tmp_path / "a.parquet", {**row, "category": "safety/typographic-jailbreaking", "l2-category": "x"})
    assert _one(read("safety_bench", jail)).category == "typographic-jailbreaking"
    guard = parquet(tmp_path / "vlguard_safe_unsafes" / "train.parquet", {k: v for k, v in row.items() if k != "label"})
    assert _one(read("safety_bench", guard)).category == "safe-unsafes"
    with pytest.raises(RefusedInput, match="neither the field 'category' nor the file's path"):
        read("safety_bench", parquet(tmp_path / "b.parquet", row))


# -- what is wrong with a file -----------------------------------------------------------------------------------------

_ASKED = {"question_id": 1, "image": "a.png", "text": "Is there a dog ?", "label": "no"}


def test_bad_rows_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(png(1)[:40])
    save(tmp_path.parent / "outside.png")
    file = jsonl(
        tmp_path / "p.jsonl",
        _ASKED,
        {**_ASKED, "label": "maybe"},
        {**_ASKED, "image": "missing.png"},
        {**_ASKED, "image": "broken.png"},
        {**_ASKED, "image": "../outside.png"},
        {**_ASKED, "image": None},
        [1],
        {**_ASKED, "text": "  "},
    )
    items = read("pope", file)
    assert [item.row for item in items.items] == [1]
    reasons = {bad.row: bad.reason for bad in items.bad_rows}
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8]
    assert reasons[2] == "field 'label' is \"maybe\", expected yes or no"
    assert reasons[3].startswith("image 'missing.png' is not found under the media root")
    assert reasons[4] == "image 'broken.png' is not a readable image: a PNG that is truncated or damaged"
    assert reasons[5].startswith("image '../outside.png' is outside the media root")
    assert reasons[6] == "field 'image' is empty: the row has no image"
    assert (reasons[7], reasons[8][:40]) == (
        "the row is [1], expected an object",
        "one of the fields 'question', 'text' is ",
    )
    told = list(items.lines())
    assert told[0] == f"row 2 is left out: {reasons[2]}"
    assert told[3] == "4 more rows are left out"


def test_images_are_bounded_before_they_are_decoded(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(
        RefusedInput, match=r"row 1: image 'a.png' has 12 x 10 = 120 pixels, more than max_pixels = 119"
    ):
        read("pope", jsonl(tmp_path / "p.jsonl", _ASKED), max_pixels=119)


def test_columns_that_nobody_knows_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    items = read("pope", jsonl(tmp_path / "p.jsonl", {**_ASKED, "difficulty": 3}, {**_ASKED, "difficulty": 1}))
    assert list(items.notes.lines()) == ["key 'difficulty' is not read: 2 rows have it, the first is row 1"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.tsv", "question\tanswer\nq\tYes\n", "has the columns 'question', 'answer', and no 'index'"),
        ("p.tsv", "", "has the columns none, and no 'index'"),
        ("p.jsonl", '{"question": "q"}\n', r"has no row of this benchmark; row 1: field 'image' is empty"),
        ("p.json", "[1", "is not valid JSON"),
        ("p.json", "", "has no row of this benchmark"),
        ("p.parquet", "PAR1xx", "cannot be read as Parquet"),
    ],
)
def test_a_file_of_another_kind_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RefusedInput, match=message):
        read("pope", tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("no.tsv", "no.jsonl"):
        with pytest.raises(RefusedInput, match=f"{name}' (is not a file|cannot be read as TSV)"):
            read("pope", tmp_path / name)


def test_broken_rows_of_a_table_of_text(tmp_path: Path) -> None:
    good = f"1\tq ?\tYes\tcount\t{text_png(1)}\n"
    bad = ["2\tq ?\tYes\n", "3\tq ?\tYes\tcount\tnot-base64\n", f"4\tq ?\tYes\tcount\t{text_png(1)[:68]}\n"]
    (tmp_path / "m.tsv").write_text("index\tquestion\tanswer\tcategory\timage\n" + good + "".join(bad))
    items = read("mme", tmp_path / "m.tsv")
    assert [item.row for item in items.items] == [1]
    assert [bad.row for bad in items.bad_rows] == [2, 3, 4]
    assert items.bad_rows[0].reason == "the row has another number of columns than the head"
    assert items.bad_rows[1].reason == "field 'image' is \"not-base64\", the index of no row that holds an image"
    assert "image" in items.bad_rows[2].reason


def test_a_folder_of_shards_is_one_file(tmp_path: Path) -> None:
    rows = [
        {"question_id": str(i), "question": f"q {i} ?", "answer": "Yes", "category": "count", "image": cell(i)}
        for i in range(3)
    ]
    parquet(tmp_path / "d" / "test-00000-of-00002.parquet", *rows[:2])
    parquet(tmp_path / "d" / "test-00001-of-00002.parquet", rows[2])
    items = _all(read("mme", tmp_path / "d", root=tmp_path))
    assert [(item.row, item.id) for item in items] == [(1, "0"), (2, "1"), (3, "2")]


def test_the_digest_of_an_item_is_of_all_that_its_row_says(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    one, same, other = _all(read("pope", jsonl(tmp_path / "p.jsonl", _ASKED, _ASKED, {**_ASKED, "label": "yes"})))
    assert one.digest == same.digest != other.digest
    assert one.key != same.key
    save(tmp_path / "a.png", 2)
    assert _all(read("pope", tmp_path / "p.jsonl"))[0].digest != one.digest


def test_a_field_as_long_as_a_picture_is_read(tmp_path: Path) -> None:
    """Python's own reader stops at 131,072 characters."""
    Image.frombytes("RGB", (300, 200), os.urandom(180_000)).save(tmp_path / "big.png")
    text = base64.b64encode((tmp_path / "big.png").read_bytes()).decode()
    assert len(text) > 131_072
    row = {"index": 1, "question": 'a "quoted"\tquestion\n?', "answer": "Yes", "category": "count", "image": text}
    item = _one(read("mme", tsv(tmp_path / "m.tsv", row)))
    assert (item.media[0].width, _words(item.question)) == (300, '[image]a "quoted"\tquestion\n?')


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [
        ("VL-RewardBench", "vl_reward_bench"),
        ("vl_rewardbench.tsv", "vl_reward_bench"),
        ("multimodal-rewardbench-2", "multimodal_reward_bench_2"),
        ("MMBench_DEV_EN.tsv", "mmbench"),
        ("MMMU_DEV_VAL.tsv", "mmmu"),
        ("SEEDBench_IMG.tsv", "seed_bench"),
        ("MMHal-Bench", "mmhal"),
        ("MM-RLHF-SafetyBench", "safety_bench"),
        ("mm-vet.json", "mm_vet"),
        ("MMMU-Pro", None),
        ("MME-RealWorld", None),
    ],
)
def test_what_a_folder_holds_is_told_by_released_names(name: str, benchmark: str | None, tmp_path: Path) -> None:
    (tmp_path / "POPE").mkdir()
    (tmp_path / name).mkdir() if "." not in name else (tmp_path / name).write_text("")
    found = holdings(tmp_path)
    assert [one for one in found.paths if one != "pope"] == ([] if benchmark is None else [benchmark])
    assert list(found.unknown) == ([name] if benchmark is None else [])
