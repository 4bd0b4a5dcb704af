"""Files as their hubs have them: Parquet with pictures in the rows, chat turns, other people's column names."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.data.__main__ import main
from orchestrator.data.reading import SourceFile, read_prompts, read_records
from orchestrator.data.recognising import recognised
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main as train
from tests.unit.data.rows import write_jsonl
from workers.multimodal.media import load_image


def _image(shade: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 40, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


_IMAGES = [_image(shade) for shade in (10, 90, 200)]
_EMBEDDED = [{"bytes": data, "path": f"somewhere/{n}.png"} for n, data in enumerate(_IMAGES)]


def _parquet(folder: Path, *rows: dict[str, Any], name: str = "train-00000-of-00001.parquet") -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / name)
    return folder / name


def _source(file: Path, read_by: str | None = None) -> SourceFile:
    found = read_by or recognised(file)
    assert found is not None
    return SourceFile(path=file, read_by=found, media_root=file.parent, max_pixels=None, video_frames=2)


def _records(file: Path) -> list[Instruction]:
    rows = list(read_records(_source(file)))
    assert not [row for row in rows if isinstance(row, BadRow)], rows
    return [row for row in rows if isinstance(row, Instruction)]


def _shades(file: Path, row: Instruction) -> list[int]:
    return [Image.open(file.parent / m.path).convert("RGB").getpixel((3, 3))[0] for m in row.media]  # type: ignore[index]


def _sides(row: Instruction) -> list[tuple[str, int | None]]:
    return [(r.text, r.rank) for r in row.responses]


def test_problems_with_pictures_in_their_rows_are_prompts_with_a_label_of_any_text(tmp_path: Path) -> None:
    rows = [
        {
            "images": _EMBEDDED[:2],
            "problem": "<image>What is the first, and <image> what the second?",
            "answer": "dark",
        },
        {"images": _EMBEDDED[2:], "problem": "How light?", "answer": "7"},
    ]
    file = _parquet(tmp_path, *rows)
    assert recognised(file) == "task"
    data = read_prompts(_source(file))
    assert not data.bad_rows and [p.label for p in data.prompts] == ["dark", "7"]
    kinds = [part["type"] for part in data.prompts[0].messages[0]["content"]]
    assert kinds == ["image", "text", "image", "text"]
    first = load_image(data.prompts[0].media[1])
    assert first.size == (40, 32) and first.getpixel((0, 0)) == (90, 90, 90)
    assert [p.meta["question"] for p in data.prompts][1] == "How light?"
    # Content names the files: reading again writes nothing and sees the same.
    before = sorted((tmp_path / "raylign_images").iterdir())
    assert read_prompts(_source(file)).fingerprint == data.fingerprint
    assert sorted((tmp_path / "raylign_images").iterdir()) == before and len(before) == 3


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What?", "chosen": "good", "rejected": "bad", "image": _EMBEDDED[1], "image_path": "gone.png"},
        {"prompt": [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]}],
         "chosen": [{"role": "assistant", "content": "good"}], "rejected": [{"role": "assistant", "content": "bad"}],
         "images": [_EMBEDDED[1]]},
        {"messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "good"}],
         "rejected_response": "bad", "images": [_EMBEDDED[1]["bytes"]]},
        {"conversations": [{"from": "human", "value": "<image>What?"}], "chosen": {"from": "gpt", "value": "good"},
         "rejected": {"from": "gpt", "value": "bad"}, "images": [base64.b64encode(_IMAGES[1]).decode()]},
        {"chosen": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "good"}],
         "rejected": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "bad"}],
         "image": _EMBEDDED[1]},
        {"text": json.dumps({"question": "What?", "chosen": "good", "rejected": "bad"}), "image": _EMBEDDED[1],
         "image_path": "gone.png", "idx": 3},
    ],
    ids=["rlaif-v", "trl", "swift", "llama-factory", "trl implicit prompt", "rlhf-v"],
)  # fmt: skip
def test_pairs_keep_their_sides_and_the_picture_of_their_row(row: dict[str, Any], tmp_path: Path) -> None:
    file = _parquet(tmp_path, row)
    (read,) = _records(file)
    assert _sides(read) == [("good", 1), ("bad", 2)]
    assert _shades(file, read) == [90]
    content = read.messages[-1]["content"]
    assert [part["type"] for part in content] == ["image", "text"] and content[1]["text"] == "What?"


def test_the_picture_of_the_row_stands_for_names_that_are_no_files(tmp_path: Path) -> None:
    message = [
        {"role": "user", "content": [{"type": "image", "image": "/their/disk/1.png"}, {"type": "text", "text": "?a"}]}
    ]
    text = base64.b64encode(_IMAGES[2]).decode()
    rows = [
        {"message": json.dumps(message), "question": "q", "answer": ["<answer>2</answer>"], "image": text},
        {
            "message": json.dumps(message),
            "question": "q",
            "answer": ["<answer>1</answer>"],
            "image": "bm8gcGljdHVyZQ==",
        },
    ]
    file = _parquet(tmp_path, *rows)
    assert recognised(file) == "r1_reward"
    data = read_prompts(_source(file))
    assert [load_image(p.media[0]).getpixel((0, 0)) for p in data.prompts] == [(200, 200, 200)]
    (bad,) = data.bad_rows
    assert bad.row == 2 and "/their/disk/1.png" in bad.reason


def test_a_store_of_them_is_whole_and_looks_as_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": f"What {n}?", "chosen": "good", "rejected": "bad", "image": image}
        for n, image in enumerate(_EMBEDDED)
    ]
    file = _parquet(tmp_path, *rows)
    assert main(["check", str(file)]) == 0
    assert not (tmp_path / "raylign_images").exists(), "a look writes nothing beside the data"
    assert main(["import", str(file), "--out", str(tmp_path / "store")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told.count("read as pairs") == 2 and "pairs   3; 0 rows make none" in told
    store = PreferenceStore(tmp_path / "store")
    assert [_shades(file, row) for row in store.rows()] == [[10], [90], [200]]


def test_rows_of_parquet_that_are_one_instruction_are_put_together(tmp_path: Path) -> None:
    common = {"id": "a", "prompt": "<image>\nWhat?", "image": _EMBEDDED[0], "chosen_reason": "why"}
    rows = [{**common, "chosen": "best", "rejected": text} for text in ("worse", "worst")]
    (read,) = _records(_parquet(tmp_path, *rows))
    assert sorted(r.text for r in read.responses) == ["best", "worse", "worst"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Q?", "chosen": "a", "rejected": "a"}, "the chosen and the rejected answer are the same text"),
        ({"question": "Q?", "chosen": "a", "rejected": ["b"]}, "field 'rejected' has a turn of"),
        ({"question": "Q?", "prompt": "P?", "chosen": "a", "rejected": "b"}, "are both given, expected one"),
        ({"messages": [{"role": "user", "content": "Q?"}], "rejected_response": "b"}, "ends with a turn of the user"),
        ({"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "a"}],
          "rejected_messages": [{"role": "user", "content": "Other?"}, {"role": "assistant", "content": "b"}]},
         "field 'rejected_messages' begins otherwise than field 'messages'"),
        ({"messages": [{"role": "user", "content": "<image>Q?"}, {"role": "assistant", "content": "a"}],
          "images": ["a.png"], "rejected_images": ["b.png"]}, "field 'rejected_images' has others than the row"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q?"}]}],
          "chosen": "a", "rejected": "b"}, "field 'prompt' has more images than the row names"),
        ({"question": "Q?", "chosen": "a", "rejected": "b", "history": "x"}, "history"),
        ({"prompt": [{"role": "user", "content": "Q?"}], "chosen": "a", "rejected": "b", "history": [["a", "b"]]},
         "field 'history' stands beside 'prompt'"),
        ({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}], "system": "T",
          "rejected_response": "b"}, "fields 'system' and 'messages' both have a turn of the system"),
    ],
)  # fmt: skip
def test_a_row_that_prefers_nothing_says_why(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", row)
    (bad,) = read_records(_source(file, "pairs"))
    assert isinstance(bad, BadRow) and reason in bad.reason


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "pairs"),
        ({"prompt": "p", "completion": "a", "label": True}, "plain_kto"),
        ({"conversations": [{"from": "user", "value": "p"}]}, "vlquery_json"),
        ({"conversations": [{"from": "human", "value": "p"}], "caption_type": 1}, "llava_ppo"),
        ({"conversations": [], "output_1": {}, "output_2": {}, "preference": 3}, "llava_preference"),
        ({"prompt": "p", "completions": []}, "vlfeedback"),
        ({"id": "1", "prompt": "p", "chosen": "a", "rejected": "b", "ls_factor": 1.0}, "mm_rlhf_pairs"),
        ({"question": "q", "ground_truth": 3}, "task"),
        ({"something": 1}, None),
        ([1, 2], None),
    ],
)
def test_a_format_is_known_by_its_keys(row: Any, name: str | None, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert recognised(file) == name


def test_what_is_no_parquet_behind_its_first_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + bytes(64))
    with pytest.raises(RefusedInput, match="cannot be read as Parquet"):
        recognised(tmp_path / "broken.parquet")


def test_a_picture_that_somebody_changed_on_disk_is_written_again(tmp_path: Path) -> None:
    file = _parquet(tmp_path, {"problem": "<image>What?", "images": _EMBEDDED[:1], "answer": "a"})
    before = read_prompts(_source(file)).fingerprint
    (made,) = (tmp_path / "raylign_images").iterdir()
    made.write_bytes(_IMAGES[1][: len(_IMAGES[0])].ljust(len(_IMAGES[0]), b"x"))
    assert read_prompts(_source(file)).fingerprint == before and made.read_bytes() == _IMAGES[0]


@pytest.mark.parametrize("algo", ["dpo", "grpo"])
def test_a_dry_run_reads_pictures_of_rows_and_writes_none(
    algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_digits_model(tmp_path / "model", seed=0)
    pair = {"question": "which one ?", "chosen": "one", "rejected": "two", "image": _EMBEDDED[0]}
    asked = {"problem": "<image>which one ?", "images": _EMBEDDED[:1], "answer": "1"}
    data = tmp_path / "data"
    data.mkdir()
    file = _parquet(data, pair if algo == "dpo" else asked)
    flags = ("--algo", algo, "--model.path", str(model), "--data.path", str(file), "--rollout.max_new_tokens", "8")
    assert train(["--dry_run", *flags]) == 0
    told = capsys.readouterr().out
    assert f'"format": "{"pairs" if algo == "dpo" else "task"}"' in told and "1 rows" in told
    assert [entry.name for entry in data.iterdir()] == [file.name]


def test_labels_that_no_rule_of_the_run_compares_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_digits_model(tmp_path / "model", seed=0)
    file = _parquet(tmp_path, {"problem": "<image>which one ?", "images": _EMBEDDED[:1], "answer": "a cat"})
    flags = ("--algo", "grpo", "--model.path", str(model), "--data.path", str(file), "--rollout.max_new_tokens", "8")
    assert train(["--dry_run", *flags]) == 2
    told = capsys.readouterr().err
    assert "1 of 1 rows have a label that is not 1 or 2" in told and "'a cat'" in told and told.count("\n") == 1
    assert train(["--dry_run", *flags, "--reward.url", "http://127.0.0.1:9/v1"]) == 0
