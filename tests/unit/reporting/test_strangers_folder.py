"""A run folder of somebody else's hurts nobody: what cannot be used is left out, and named on page and console."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.report import main
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import write_rollouts
from tests.report_runs import held_out, media, rollout, write_run

ROOT = Path(__file__).parents[3]
_DIGEST = "ab" * 32


def _told(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command said was left out; the page says the same."""
    assert main([str(root)]) == 0
    captured = capsys.readouterr()
    page = (root / "report.html").read_text()
    for line in captured.err.splitlines():
        assert line.startswith("left out: ")
    assert page.count('<p class="note">') >= len(captured.err.splitlines())
    return captured.err


def test_a_pipe_a_device_and_a_folder_in_place_of_an_image_are_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    rows = [
        rollout(((str(path), _DIGEST),), uid=f"u{k}", answer_right=bool(k % 2))
        for k, path in enumerate((tmp_path / "pipe.png", Path("/dev/zero"), tmp_path / "folder.png"))
    ]
    told = _told(write_run(tmp_path / "run", rollouts={1: rows}), capsys)
    assert "pipe.png is no plain file" in told and "zero is no plain file" in told
    assert "folder.png is no plain file" in told


def test_a_file_without_end_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "huge.png"
    image.touch()
    os.truncate(image, 9 << 30)
    root = write_run(tmp_path / "run", rollouts={1: [rollout(((str(image), _DIGEST),))]})
    os.truncate(root / "manifest.json", 9 << 30)
    told = _told(root, capsys)
    assert "huge.png has 9663676416 bytes, more than" in told
    assert "manifest.json has 9663676416 bytes, more than" in told


def test_an_image_in_a_format_that_another_program_opens_starts_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gs", "gswin64c"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    image = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(image, format="EPS")
    told = _told(write_run(tmp_path / "run", rollouts={1: [rollout(media(image))]}), capsys)
    assert "picture.png is PostScript; read are PNG" in told and not (tmp_path / "started").exists()


_DEEP = "[" * 100_000 + "]" * 100_000
_NUMBER = "9" * 5000


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "evaluations/step_000000.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f'{{"a": {_DEEP}}}', "is nested too deeply"),
        ('{"a": ' * 60 + "1" + "}" * 60, "is nested too deeply"),
        (f'{{"num_held_out": {_NUMBER}}}', "holds an integer of 5000 characters"),
        ('{"run": {"steps": 99999999999999999999}}', "holds an integer of 20 characters"),
        ("[" * 20, "is no JSON"),
    ],
)
def test_a_file_that_is_no_json_for_a_report_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, reason: str
) -> None:
    root = write_run(tmp_path / "run", [{"step": 1, "reward/mean": 1.0}])
    (root / name).write_text(content)
    assert f"{name} {reason}" in _told(root, capsys)


def test_rows_of_any_numbers_make_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = (1e308, -1e308, 5e-324, 1e-300, -0.0, 1e16, float("inf"), float("nan"), True, 2**62, None, "text", [1], {})
    rows = [
        {"step": step, "reward/mean": value, "mismatch/logprob_abs_mean": value, "time/step_s": value}
        for step, value in zip((0, 1, 2**62, -(2**62), *range(3, 13)), values, strict=True)
    ]
    config = {"algo": "grpo", "run": {"steps": 2**62}, "sync": {"tolerance": 1e308}, "reward": {"min_coverage": 1e-320}}
    root = write_run(tmp_path / "run", rows, config=config)
    (root / "manifest.json").write_text(json.dumps({"num_held_out": 2**62, "note": "half \ud800 of a character"}))
    with (root / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {_NUMBER}}}\n{{"step": 20, "a": {_DEEP}}}\n{{"step": true}}\n[]\n')
    assert "4 torn lines of metrics.jsonl were left out" in _told(root, capsys)


@pytest.mark.parametrize("values", [(5e-324, 0.0), (1e99, 1e99 * (1 + 1e-15)), (-1e99, 1e99), (1e-300, 1e-300)])
def test_a_curve_of_any_finite_numbers_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: tuple[float, ...]
) -> None:
    rows = [{"step": step, "mismatch/logprob_abs_mean": value} for step, value in enumerate(values)]
    root = write_run(tmp_path / "run", rows)
    assert _told(root, capsys) == "" and "nan" not in (root / "report.html").read_text().partition("</style>")[2]


_SECRETS = {
    "config.json": '{"algo": "a secret"}',
    "manifest.json": '{"note": "a secret"}',
    "metrics.jsonl": '{"step": 1, "a secret/x": 1.0}',
    "evaluations/answers.jsonl": '{"uid": "a secret", "before": {"text": "x"}, "after": {"text": "y"}}',
    "evaluations/step_000003.json": '{"samples": [{"uid": "h", "completion_text": "a secret"}]}',
    "rollouts/step_000001.parquet": "",
}


@pytest.mark.parametrize("name", _SECRETS)
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    secret = tmp_path / "outside"
    secret.write_text(_SECRETS[name])
    evaluations = {} if name.endswith("answers.jsonl") else {0: [held_out("h", "x", right=True)]}
    root = write_run(tmp_path / "run", [{"step": 1, "reward/mean": 0.5}], evaluations=evaluations)
    if name.startswith("rollouts"):
        write_rollouts(secret, [rollout(completion_text="a secret")])
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(secret)
    assert "is a link that leads out of its folder" in _told(root, capsys)
    assert "a secret" not in (root / "report.html").read_text()


def test_a_run_whose_files_are_pipes_and_sockets_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "config.json"))
        assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("refused: ") and captured.err.count("\n") == 1


def test_rollouts_of_other_columns_and_a_table_that_swells_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", rollouts={1: [rollout()], 5: [rollout()]}))
    pq.write_table(pa.table({"uid": ["a"]}), folder.rollout_file(2))
    table = pq.read_table(folder.rollout_file(1))
    place = table.schema.get_field_index("reward")
    pq.write_table(table.set_column(place, "reward", pa.array(["much"])), folder.rollout_file(3))
    pq.write_table(pa.table({"reward_status": pa.repeat("scored", 3 << 20)}), folder.rollout_file(4))
    told = _told(folder.root, capsys)
    assert "Step 2" in told and "has no column" in told
    assert "Step 3" in told and "'reward' of double" in told
    assert "Step 4" in told and "more than" in told
    assert "Step 1:" not in told and "Step 5:" not in told


def test_a_text_that_all_rows_share_is_in_memory_once(tmp_path: Path) -> None:
    """A file of less than a megabyte whose texts would fill 8 GiB."""
    folder = RunFolder(write_run(tmp_path / "run", rollouts={1: [rollout()] * 1000}))
    table = pq.read_table(folder.rollout_file(1))
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * (8 << 20)])
    table = table.set_column(table.schema.get_field_index("label"), "label", shared)
    pq.write_table(table, folder.rollout_file(1), dictionary_pagesize_limit=1 << 30)
    assert folder.rollout_file(1).stat().st_size < 1 << 20
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30));"
        "from orchestrator.report import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.root)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"label {'x' * 4000} … {(8 << 20) - 4000} characters more" in folder.report.read_text()
