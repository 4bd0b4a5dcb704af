"""What an engine reads from shared memory is what the trainer wrote last, or an error."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from workers.weight_sync.manifest import SyncError, WeightManifest
from workers.weight_sync.shared_memory import WeightFile, WeightReader, clear_exchange, exchange_folder

_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64]


@pytest.fixture
def run_id() -> Iterator[str]:
    name = uuid4().hex
    yield name
    clear_exchange(name)


def _read(reader: WeightReader, manifest: WeightManifest) -> dict[str, Tensor]:
    """Copies, as an engine makes them."""
    views = reader.read(manifest.path, manifest.digests, manifest.dtypes, manifest.shapes)
    return {name: tensor.clone() for name, tensor in views}


def _write(file: WeightFile, tensors: dict[str, Tensor], version: int = 0) -> WeightManifest:
    return file.write(tensors.items(), policy_version=version, full=True)


@given(
    st.lists(
        st.tuples(st.sampled_from(_DTYPES), st.lists(st.integers(0, 5), max_size=3), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_tensors_of_any_dtype_and_shape_come_back(layout: list[tuple[torch.dtype, list[int], bool]]) -> None:
    tensors = {}
    for index, (dtype, shape, transposed) in enumerate(layout):
        tensor = torch.arange(torch.Size(shape).numel()).to(dtype).reshape(shape) + index
        tensors[f"t{index}"] = tensor.T if transposed and tensor.ndim == 2 else tensor
    name = uuid4().hex
    try:
        found = _read(WeightReader(), _write(WeightFile(name), tensors))
    finally:
        clear_exchange(name)
    assert list(found) == list(tensors)
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())


def test_a_version_takes_the_memory_of_the_one_before(run_id: str) -> None:
    file, reader = WeightFile(run_id), WeightReader()
    first = _write(file, {"a": torch.zeros(1000), "b": torch.zeros(1000)})
    assert torch.equal(_read(reader, first)["b"], torch.zeros(1000))
    inode = Path(first.path).stat().st_ino
    smaller = _write(file, {"a": torch.full((1000,), 2.0)}, version=1)
    assert torch.equal(_read(reader, smaller)["a"], torch.full((1000,), 2.0))
    larger = _write(file, {"a": torch.ones(5000), "b": torch.ones(7)}, version=2)
    assert torch.equal(_read(reader, larger)["a"], torch.ones(5000))
    assert Path(larger.path).stat().st_ino == inode
    assert len(list(exchange_folder(run_id).iterdir())) == 1


def test_content_that_was_not_announced_is_refused_by_name(run_id: str) -> None:
    manifest = _write(WeightFile(run_id), {"a": torch.zeros(8), "b": torch.zeros(8)})
    with open(manifest.path, "r+b") as file:
        file.seek(64)  # the first number of b
        file.write(b"\x01")
    with pytest.raises(SyncError, match="'b' in shared memory is not what was announced"):
        _read(WeightReader(), manifest)


def test_a_file_that_is_too_short_is_refused(run_id: str) -> None:
    manifest = _write(WeightFile(run_id), {"a": torch.zeros(8)})
    longer = replace(manifest, shapes=((1 << 30,),))
    with pytest.raises(SyncError, match="holds 67108864 bytes of weights, 4294967296 were announced"):
        _read(WeightReader(), longer)


def test_weights_that_do_not_fit_are_a_sentence_and_not_a_dead_process(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SyncError, match=r"67108864 bytes of weights do not fit into .*: No space left on device"):
        _write(WeightFile(run_id), {"a": torch.zeros(8)})


def test_a_new_trainer_is_not_taken_for_the_old_one(run_id: str) -> None:
    reader = WeightReader()
    _read(reader, _write(WeightFile(run_id), {"a": torch.zeros(8)}))
    again = _write(WeightFile(run_id), {"a": torch.ones(8)})
    assert torch.equal(_read(reader, again)["a"], torch.ones(8))
    assert [str(f) for f in exchange_folder(run_id).iterdir()] == [again.path]


@pytest.fixture
def planted(run_id: str) -> Iterator[Path]:
    """The name of the folder of a run that has not begun."""
    folder = exchange_folder(run_id)
    folder.rmdir()
    yield folder
    folder.unlink() if folder.is_symlink() or folder.is_file() else folder.chmod(0o700)


@pytest.mark.parametrize("use", [WeightFile, clear_exchange])
def test_a_link_planted_where_weights_are_exchanged_costs_nobody_a_file(
    run_id: str, planted: Path, tmp_path: Path, use: Callable[[str], object]
) -> None:
    others = [tmp_path / "thesis.tex", tmp_path / "weights-0.bin"]
    for file in others:
        file.write_text("years of work")
    planted.symlink_to(tmp_path)
    with pytest.raises(SyncError, match="is not a folder of this user's alone; remove it"):
        use(run_id)
    assert [file.read_text() for file in others] == ["years of work"] * 2


def test_a_file_and_a_folder_that_all_may_write_are_not_used_for_weights(run_id: str, planted: Path) -> None:
    planted.touch()
    with pytest.raises(SyncError, match="this user's alone"):
        WeightFile(run_id)
    planted.unlink()
    planted.mkdir()
    planted.chmod(0o777)
    with pytest.raises(SyncError, match="this user's alone"):
        WeightFile(run_id)


def test_what_is_not_a_weight_file_of_ours_is_left_alone(run_id: str) -> None:
    note = exchange_folder(run_id) / "note.txt"
    note.write_text("mine")
    WeightFile(run_id)
    clear_exchange(run_id)
    assert note.read_text() == "mine"
    note.unlink()


def test_a_tensor_may_be_gone_once_the_next_is_asked_for(run_id: str) -> None:
    # As under ZeRO-3, where a parameter is whole only while it is gathered.
    def gathered() -> Iterator[tuple[str, Tensor]]:
        for name in "ab":
            tensor = torch.ones(1 << 20)
            yield name, tensor
            tensor.zero_()

    manifest = WeightFile(run_id).write(gathered(), policy_version=0, full=True)
    assert all(torch.equal(t, torch.ones(1 << 20)) for t in _read(WeightReader(), manifest).values())
