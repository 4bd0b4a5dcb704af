"""Checkpoints are copied to another address whole, beside the run, and come back from there."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.run import mirror
from orchestrator.run.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    found = RunFolder(tmp_path / "runs" / "run")
    found.create()
    found.config.write_text("{}")
    yield found
    found.release()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses between attempts, and a store of its own."""
    monkeypatch.setattr(mirror, "_LONGEST_PAUSE_S", 0.0)
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def _checkpoint(folder: RunFolder, step: int, words: str = "weights") -> Path:
    target = folder.checkpoint(step)
    (target / "policy").mkdir(parents=True)
    (target / "policy" / "model.safetensors").write_text(f"{words} {step}")
    (target / "manifest.json").write_text(f'{{"step": {step}}}')
    return target


def _names() -> set[str]:
    return {path.removeprefix("/far/runs/run/") for path in fsspec.filesystem("memory").store}


def test_a_checkpoint_is_copied_with_what_continues_it_and_an_old_one_goes(folder: RunFolder) -> None:
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 1))
    assert "checkpoints/step_000001/policy/model.safetensors" in _names() and "config.json" in _names()
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        _checkpoint(folder, 2)
        folder.prune(keep=1)
        copies.send(folder.checkpoint(2))
    assert copies.figures() == {"mirror/step": 2.0, "mirror/failed": 0.0}
    assert {name for name in _names() if "step_" in name} == {
        "checkpoints/step_000002/policy/model.safetensors",
        "checkpoints/step_000002/manifest.json",
    }
    assert not (folder.root / ".mirror").exists()


def test_pruning_while_a_copy_is_under_way_takes_nothing_from_it(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, put = threading.Event(), threading.Event(), mirror._put

    def slow(files: Any, local: Path, remote: str) -> None:
        begun.set()
        assert go_on.wait(10)
        put(files, local, remote)

    monkeypatch.setattr(mirror, "_put", slow)
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 1))
        assert begun.wait(10)
        for step in (2, 3):
            copies.send(_checkpoint(folder, step))
            folder.prune(keep=1)
        go_on.set()
    # The one that waited when a newer one came was never copied.
    store = fsspec.filesystem("memory").store
    assert "/far/runs/run/checkpoints/step_000002/manifest.json" not in store
    found = store["/far/runs/run/checkpoints/step_000003/policy/model.safetensors"].getvalue()
    assert (found, copies.figures()["mirror/step"]) == (b"weights 3", 3.0)


def test_a_copy_is_tried_again_and_one_that_is_given_up_is_counted_said_and_never_whole(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, tries = mirror._put, list[str]()

    def broken(files: Any, local: Path, remote: str) -> None:
        tries.append(remote)
        if "step_000001" in remote and len(tries) < 3:
            raise ConnectionError("reset by peer")
        if "step_000002" in remote:
            raise PermissionError("no longer allowed")
        put(files, local, remote)

    monkeypatch.setattr(mirror, "_put", broken)
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 1))
    assert copies.figures() == {"mirror/step": 1.0, "mirror/failed": 0.0}
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 2))
    assert copies.figures() == {"mirror/failed": 1.0}
    assert copies.said() == ["run.mirror: step_000002 was not copied: no longer allowed"]
    assert "checkpoints/step_000002/manifest.json" not in _names()
    assert "checkpoints/step_000001/manifest.json" in _names()


def test_a_file_system_without_hard_links_costs_the_copy_and_not_the_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 1))
    assert copies.figures() == {"mirror/failed": 1.0}
    assert "step_000001 was not copied" in copies.said()[0]


def test_whoever_interrupts_does_not_wait_for_a_copy(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(mirror, "_put", lambda *_: go_on.wait(30))
    with pytest.raises(KeyboardInterrupt), mirror.open_mirror(folder, "memory://far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 1))
        raise KeyboardInterrupt
    assert copies is not None and copies.said() == ["run.mirror: the last copy was not whole after 0 s"]
    go_on.set()


def test_an_end_waits_no_longer_than_its_deadline(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(mirror, "_put", lambda *_: go_on.wait(10))
    copies = mirror.Mirror(folder, "memory://far")
    copies.send(_checkpoint(folder, 1))
    copies.close(deadline_s=0.05)
    go_on.set()
    assert copies.said() == ["run.mirror: the last copy was not whole after 0 s"]


def test_a_run_folder_without_a_checkpoint_gets_the_newest_whole_copy(folder: RunFolder, tmp_path: Path) -> None:
    with mirror.open_mirror(folder, f"file://{tmp_path}/far") as copies:
        assert copies is not None
        copies.send(_checkpoint(folder, 3))
    (tmp_path / "far" / "runs" / "run" / "checkpoints" / "step_000009" / "policy").mkdir(parents=True)  # half a copy
    other = RunFolder(tmp_path / "elsewhere" / "runs" / "run")
    other.create()
    assert mirror.fetch_newest(other, f"file://{tmp_path}/far") == 3
    (found,) = other.complete_checkpoints()
    assert (found / "policy" / "model.safetensors").read_text() == "weights 3"
    assert other.config.read_text() == "{}"
    other.release()
    assert mirror.fetch_newest(RunFolder(tmp_path / "another"), f"file://{tmp_path}/far") is None


@pytest.mark.parametrize("address", ["nosuchstore://bucket/runs", "file:///proc/none"])
def test_an_address_that_cannot_be_written_to_is_refused_by_name(folder: RunFolder, address: str) -> None:
    with pytest.raises(RefusedInput, match=f"run.mirror = '{address}' cannot be"), mirror.open_mirror(folder, address):
        pass


def test_credentials_in_the_address_are_refused_unsaid() -> None:
    with pytest.raises(RefusedInput) as refused:
        load_config(["--algo", "grpo", "--run.mirror", "s3://name:hunter2@bucket/runs"])
    assert "run.mirror holds credentials" in str(refused.value)
    assert "hunter2" not in str(refused.value)
