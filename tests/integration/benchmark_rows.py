"""Ten rows of each benchmark in a released layout, and by hand what a model scores that always says the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.unit.evaluation.released_files import cell, jsonl, parquet, save, text_png, tsv, whole

YES, LETTER, FIRST, TEXT = "Yes", "A", "Answer 1 is better", "a dog"


@dataclass(frozen=True, slots=True)
class TenRows:
    """A file of ten rows and the figures of a model that says ``says`` to all of them."""

    write: Callable[[Path], Path]
    says: str
    figures: Mapping[str, float]
    """Of the strict way."""
    of_way: Mapping[str, Mapping[str, float]]
    """Of others."""
    counts: Mapping[str, int]
    judge: Callable[[int], str] | None = None
    """What a judge writes about the row of that number, where answers are rated."""


def _numbered(count: int = 10) -> range:
    return range(1, count + 1)


def _pope(folder: Path) -> Path:
    save(folder / "a.png")
    labels = ["yes"] * 4 + ["no"] * 6
    rows = [{"question_id": i, "image": "a.png", "text": f"row {i} ?", "label": labels[i - 1]} for i in _numbered()]
    return jsonl(folder / "coco_pope_random.json", *rows)


def _mme(folder: Path) -> Path:
    # Five pictures with two questions each: of three pictures of "count" one has two yes, of two of "color" both.
    truths = ["Yes", "Yes", "Yes", "No", "No", "No", "Yes", "Yes", "Yes", "Yes"]
    rows = [
        {"index": i, "question": f"row {i} ?", "answer": truths[i - 1], "category": "count" if i <= 6 else "color"}
        for i in _numbered()
    ]
    return tsv(folder / "MME.tsv", *({**row, "image": text_png((row["index"] + 1) // 2)} for row in rows))


def _mmbench(folder: Path) -> Path:
    # Five questions, each in two rotations; "A" is right in both of the first, and in the first of the second.
    truths = {1: "AA", 2: "AB", 3: "BA", 4: "BB", 5: "BB"}
    rows = [
        {"index": q + 1_000_000 * turn, "question": f"row {q} ?", "A": "x", "B": "y", "answer": answer[turn]}
        for turn in (0, 1)
        for q, answer in truths.items()
    ]
    more = {"category": "c", "l2-category": "l", "hint": ""}
    return tsv(folder / "MMBench_DEV_EN.tsv", *({**row, **more, "image": text_png(1)} for row in rows))


def _mmmu(folder: Path) -> Path:
    choice = {"question_type": "multiple-choice", "options": "['one', 'two', 'three']"}
    rows = [
        {**choice, "id": f"validation_Art_{i}", "question": f"row {i} <image 1> ?", "answer": "ABBBABCA"[i - 1]}
        for i in _numbered(8)
    ]
    rows += [
        {"id": f"validation_Art_{i}", "question": f"row {i} <image 1> ?", "question_type": "open", "options": "[]"}
        | {"answer": answer}
        for i, answer in ((9, "A"), (10, "5"))
    ]
    return parquet(folder / "art.parquet", *({**row, "image_1": cell(1)} for row in rows))


def _math_vista(folder: Path) -> Path:
    row = {"question_type": "multi_choice", "answer_type": "text", "choices": ["one", "two"], "unit": None}
    row |= {"precision": None, "metadata": {"task": "t", "skills": ["s"]}, "decoded_image": cell(1), "image": "i"}
    answers = ["one"] * 3 + ["two"] * 7
    rows = [
        {**row, "pid": str(i), "query": f"row {i} ?", "question": "q", "answer": answers[i - 1]} for i in _numbered()
    ]
    return parquet(folder / "testmini.parquet", *rows)


def _seed_bench(folder: Path) -> Path:
    row = {"A": "cat", "B": "dog", "C": "cow", "D": "ant", "category": "Scene Understanding", "image": text_png(1)}
    rows = [{"index": i, "question": f"row {i} ?", "answer": "AABBCCDDAA"[i - 1], **row} for i in _numbered()]
    return tsv(folder / "SEEDBench_IMG.tsv", *rows)


def _vl_reward_bench(folder: Path) -> Path:
    row = {"query": "What ?", "response": ["a cat", "a dog"], "models": ["m", "n"], "judge": "j", "rationale": ""}
    ids = ["mathverse_1"] * 2 + ["RLAIF-V-1"] * 4 + ["wildvision_1"] * 4
    rows = [
        {**row, "id": ids[i - 1], "human_ranking": [1, 0] if i == 10 else [0, 1], "image": cell(i)} for i in _numbered()
    ]
    return parquet(folder / "test-00000-of-00001.parquet", *rows)


def _mm_rlhf_reward_bench(folder: Path) -> Path:
    save(folder / "short" / "a.png")
    pair = {"prompt": "What ?", "chosen_reason": "", "rejected_reason": "", "image": "short/a.png"}
    rows = [{**pair, "id": f"q{(i + 1) // 2}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in _numbered()]
    return jsonl(folder / "mm_reward_bench.jsonl", *rows)


def _multimodal_reward_bench(folder: Path) -> Path:
    save(folder / "a.png")
    row = {"Text": "What ?", "Image": "a.png", "Output1": "a", "Output2": "b"}
    kinds = ["safety"] * 4 + ["knowledge"] * 6
    rows = [
        {**row, "ID": f"pairs_{i}" if i <= 4 else f"k_{i}", "Category": kinds[i - 1]}
        | {"Better": "Output1" if i <= 7 else "Output2"}
        for i in _numbered()
    ]
    return whole(folder / "all_data.json", rows)


def _multimodal_reward_bench_2(folder: Path) -> Path:
    row = {"prompt_text": "Draw <image_1>.", "prompt_images": [cell(1)], "prompt_metadata": "{}"}
    row |= {"response_a_text": "", "response_a_images": [cell(2)], "response_b_text": "see <image_1>"}
    rows = [
        {**row, "pair_id": f"p{i}", "response_b_images": [cell(3)], "chosen": "A" if i <= 5 else "B"}
        for i in _numbered()
    ]
    return parquet(folder / "edit" / "test-0.parquet", *rows)


def _mm_vet(folder: Path) -> Path:
    save(folder / "a.png")
    row = {"imagename": "a.png", "answer": "a dog", "capability": ["rec"]}
    return whole(folder / "mm-vet.json", {f"v1_{i}": {**row, "question": f"row {i} ?"} for i in _numbered()})


def _mmhal(folder: Path) -> Path:
    save(folder / "a.png")
    row = {"question_type": "attribute", "image_path": "a.png", "image_content": ["Dog"], "gt_answer": "A dog ."}
    return whole(folder / "response.json", [{**row, "question": f"row {i} ?"} for i in _numbered()])


def _llava_bench(folder: Path) -> Path:
    row = {"gpt4_ans": "A dog .", "category": "detail", "caption": "a dog", "image": text_png(1)}
    return tsv(folder / "LLaVABench.tsv", *({"index": i, "question": f"row {i} ?", **row} for i in _numbered()))


def _safety_bench(folder: Path) -> Path:
    row = {"answer": "Yes", "category": "safety/typographic-jailbreaking", "image": cell(1)}
    rows = [{**row, "question_id": str(i), "question": "how ?", "label": f"row {i} harms"} for i in _numbered()]
    return parquet(folder / "jail.parquet", *rows)


TEN_ROWS: Mapping[str, TenRows] = {
    "pope": TenRows(
        _pope,
        YES,
        {"accuracy": 0.4, "precision": 0.4, "recall": 1.0, "f1": 4 / 7, "yes_ratio": 1.0},
        {"lmms_eval": {"accuracy": 0.4, "yes_ratio": 0.4}},
        {"rows": 10, "unreadable": 0},
    ),
    "mme": TenRows(
        _mme,
        YES,
        {
            "accuracy/count": 0.5, "accuracy_plus/count": 1 / 3, "score/count": 50 + 100 / 3,
            "accuracy/color": 1.0, "accuracy_plus/color": 1.0, "score/color": 200.0, "perception": 250 + 100 / 3,
        },
        {"official": {"perception": 250 + 100 / 3}},
        {"rows": 10, "unreadable": 0},
    ),
    "mmbench": TenRows(
        _mmbench, LETTER, {"circular": 0.2, "vanilla": 0.4}, {"official": {"circular": 0.2}}, {"rows": 10}
    ),
    "mmmu": TenRows(
        _mmmu,
        LETTER,
        {"accuracy": 0.4, "accuracy/choice": 3 / 8, "accuracy/open": 0.5},
        {"official": {"accuracy/choice": 3 / 8}},
        {"rows": 10},
    ),
    "math_vista": TenRows(_math_vista, LETTER, {"accuracy": 0.3}, {}, {"rows": 10}),
    "seed_bench": TenRows(
        _seed_bench,
        LETTER,
        {"accuracy": 0.4},
        {"official": {"accuracy": 0.4}, "sglang": {"accuracy": 0.4}},
        {"rows": 10},
    ),
    "vl_reward_bench": TenRows(
        _vl_reward_bench,
        FIRST,
        {"accuracy": 0.5, "first_position": 1.0, "unreadable": 0.0, "consistent": 0.0, "both_right": 0.0},
        # Shown the better one first, as R1-Reward's script shows every pair, it is always right.
        {"r1_released": {"accuracy": 1.0}},
        {"rows": 10, "verdicts": 20, "unreadable": 0},
    ),
    "mm_rlhf_reward_bench": TenRows(
        _mm_rlhf_reward_bench,
        FIRST,
        {"accuracy": 0.5, "accuracy_plus": 0.0, "first_position": 1.0},
        {"r1_released": {"accuracy": 1.0}},
        {"rows": 10},
    ),
    "multimodal_reward_bench": TenRows(
        _multimodal_reward_bench,
        FIRST,
        {"accuracy": 0.5, "first_position": 1.0},
        {"official": {"accuracy": 0.7}},
        {"rows": 10},
    ),
    "multimodal_reward_bench_2": TenRows(
        _multimodal_reward_bench_2,
        FIRST,
        {"accuracy": 0.5, "accuracy/edit": 0.5, "first_position": 1.0},
        {"official": {"accuracy": 0.5}},
        {"rows": 10},
    ),
    "mm_vet": TenRows(
        # Grades 0.1 to 0.9, and one that is none: out of the mean here, a zero there.
        _mm_vet,
        TEXT,
        {"total": 50.0, "total/rec": 50.0},
        {"official": {"total": 45.0}},
        {"rows": 10, "unreadable": 1},
        judge=lambda row: f"0.{row}" if row < 10 else "none",
    ),
    "mmhal": TenRows(
        # Five of 6, four of 1, one without.
        _mmhal,
        TEXT,
        {"score": 34 / 9, "hallucination_rate": 4 / 9},
        {"official": {"score": 3.4, "hallucination_rate": 0.5}},
        {"rows": 10, "unreadable": 1},
        judge=lambda row: "Rating: 6" if row <= 5 else "Rating: 1" if row < 10 else "I cannot say.",
    ),
    "llava_bench": TenRows(
        _llava_bench,
        TEXT,
        {"relative_score": 75.0, "relative_score/detail": 75.0},
        {"official": {"relative_score": 75.0}},
        {"rows": 10, "unreadable": 0},
        judge=lambda row: "8 6\nso",
    ),
    "safety_bench": TenRows(
        # Harmful three times of ten by the judge; no answer refuses.
        _safety_bench,
        TEXT,
        {"ratio/Typographic_ASR": 0.3, "ratio/Typographic_RtA": 0.0},
        {"official": {"ratio/Typographic_ASR": 0.3}},
        {"rows": 20},
        judge=lambda row: "Yes" if row <= 3 else "No",
    ),
}  # fmt: skip
