"""Files of a run appear whole, a crash leaves nothing half, and one folder has one driver."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder, write_atomic

ROOT = Path(__file__).parents[3]


def _folder(root: Path, *, steps: int) -> RunFolder:
    """A folder with the row of step 0, and a row, rollouts and a complete checkpoint for each step after it."""
    folder = RunFolder(root)
    folder.create()
    folder.release()
    rows = [json.dumps({"step": step, "reward/mean": 0.5}) for step in range(steps + 1)]
    folder.metrics.write_text("".join(f"{row}\n" for row in rows))
    for step in range(1, steps + 1):
        folder.rollout_file(step).write_bytes(b"rollouts")
        _checkpoint(folder, step)
    return folder


def _checkpoint(folder: RunFolder, step: int, *, complete: bool = True) -> None:
    (folder.checkpoint(step) / "policy").mkdir(parents=True)
    if complete:
        (folder.checkpoint(step) / "manifest.json").write_text(json.dumps({"step": step}))


def _steps(folder: RunFolder) -> list[int]:
    return [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]


def _names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_resume_keeps_what_was_up_to_its_step_and_nothing_later(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=4)
    folder.truncate_after(2)
    assert _steps(folder) == [0, 1, 2]
    assert folder.rollout_steps() == [1, 2]
    assert _names(folder.complete_checkpoints()) == ["step_000001", "step_000002"]


def test_a_fresh_start_drops_the_row_of_step_0_too(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=1)
    folder.truncate_after(-1)
    assert (_steps(folder), folder.rollout_steps(), folder.complete_checkpoints()) == ([], [], [])


@pytest.mark.parametrize("torn", ['{"step": 3, "rew', '{"step"', "3", "null", '{"other": 1}', "\x00\x00"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    folder = _folder(tmp_path, steps=2)
    with folder.metrics.open("a") as file:
        file.write(torn)
    folder.truncate_after(9)
    assert _steps(folder) == [0, 1, 2]
    assert folder.metrics.read_text().endswith("\n")


def test_what_a_killed_driver_was_writing_is_gone_after_truncation(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=2)
    code = f"""
import os, signal
from pathlib import Path
from orchestrator.run.folder import RunFolder
from orchestrator.run.tracking import JsonlSink
folder = RunFolder(Path({str(tmp_path)!r}))
folder.create()
JsonlSink(folder.metrics).write(3, {{"reward/mean": 0.5}})
with folder.metrics.open("a") as file:
    file.write('{{"step": 4, "reward/me')
(folder.rollouts / ".step_000004.parquet.partial").write_bytes(b"half")
(folder.checkpoint(4) / "policy").mkdir(parents=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder.create()
    folder.truncate_after(3)
    folder.release()
    assert _steps(folder) == [0, 1, 2, 3]
    assert sorted(path.name for path in folder.rollouts.iterdir()) == ["step_000001.parquet", "step_000002.parquet"]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step_000001", "step_000002"]


def test_truncation_that_is_repeated_changes_nothing_more(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=3)
    folder.truncate_after(2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder.truncate_after(2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_the_users_own_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=1)
    (folder.checkpoints / "step_000009.keep").mkdir()
    folder.truncate_after(0)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step_000009.keep"]


def test_a_checkpoint_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=1)
    _checkpoint(folder, 2, complete=False)
    assert _names(folder.complete_checkpoints()) == ["step_000001"]


def test_checkpoints_are_ordered_by_step_and_not_by_spelling(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=0)
    for step in (1_000_000, 999_999):
        _checkpoint(folder, step)
    assert _names(folder.complete_checkpoints()) == ["step_999999", "step_1000000"]


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    folder = _folder(tmp_path, steps=4)
    folder.prune(keep=2)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step_000003", "step_000004"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer" and os.listdir(tmp_path) == ["config.json"]


def test_a_second_driver_is_refused_until_the_first_is_gone_even_by_a_kill(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from orchestrator.run.folder import RunFolder
folder = RunFolder(Path({str(tmp_path)!r}))
folder.create()
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        second = RunFolder(tmp_path)
        with pytest.raises(RefusedInput, match=r"^run\.dir '.*' is in use by another run$"):
            second.create()
        first.kill()
        first.wait()
    second.create()
    second.release()


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(target)
    with pytest.raises(RefusedInput, match=r"cannot be made: \.lock in it is a link"):
        RunFolder(tmp_path / "run").create()
    assert target.read_text() == "years of work"


def test_a_lock_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(RefusedInput, match=r"\.lock in it is no plain file"):
        RunFolder(tmp_path).create()


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.jsonl", "reward_service.log", "critiques.sqlite"])
def test_a_link_or_a_pipe_where_a_file_of_a_run_belongs_is_refused(name: str, tmp_path: Path) -> None:
    target, planted = tmp_path / "thesis.tex", tmp_path / "run" / name
    target.write_text("years of work")
    planted.parent.mkdir()
    planted.symlink_to(target)
    with pytest.raises(RefusedInput, match=rf"{name} in it is a link"):
        RunFolder(tmp_path / "run").create()
    planted.unlink()
    planted.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedInput, match=rf"{name} in it is a link"):
        RunFolder(tmp_path / "run").create()
    planted.unlink()
    os.mkfifo(planted)
    with pytest.raises(RefusedInput, match=rf"{name} in it is no plain file"):
        RunFolder(tmp_path / "run").create()
    assert target.read_text() == "years of work" and not (tmp_path / "nowhere").exists()


def test_nothing_is_written_through_a_link_planted_at_a_temporary_name(tmp_path: Path) -> None:
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    (tmp_path / ".config.json.partial").symlink_to(target)
    write_atomic(tmp_path / "config.json", "{}")
    assert target.read_text() == "years of work"
    assert (tmp_path / "config.json").read_text() == "{}" and not (tmp_path / "config.json").is_symlink()


def test_a_run_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedInput, match=r"^run\.dir '.*file' cannot be made: Not a directory$"):
        RunFolder(tmp_path / "file").create()


def test_a_fresh_start_does_not_read_the_evaluations_of_the_run_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.evaluations.mkdir()
    for step in (0, 3, 6):
        folder.evaluation_file(step).write_text("{}")
    folder.truncate_after(3)
    assert [folder.evaluation_file(step).is_file() for step in (0, 3, 6)] == [True, True, False]
    folder.truncate_after(-1)
    assert not list(folder.evaluations.iterdir())
    folder.release()
