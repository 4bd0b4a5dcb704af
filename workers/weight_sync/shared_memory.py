"""Weights through one file in shared memory: the transport of one machine, CPU or GPU.

The trainer writes the same file at every version, so its pages are there already; engines map it once. What a reader
finds is compared with the announced digests, tensor by tensor, before it is used: a torn or stale file is an error.
"""

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from workers.weight_sync.manifest import SyncError, WeightManifest, dtype_name, tensor_digest

_ROOT = Path("/dev/shm")
_HASHERS = 2
_GROWTH_BYTES = 64 << 20
_ALIGNMENT = 64
"""Bytes; so that a tensor of any dtype can follow any other."""
_PATTERN = "weights-*.bin"


def exchange_folder(run_id: str) -> Path:
    """The folder one run exchanges weights through; created if missing.

    Its name can be guessed, and everybody may write beside it: what is there already is used only if it is a folder of
    this user's own that nobody else may write into. Nobody can then put another one in its place.

    Raises:
        SyncError: it is a link, a file, or somebody else's.
    """
    root = _ROOT if _ROOT.is_dir() else Path(tempfile.gettempdir())
    folder = root / f"raylign-{run_id}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
            raise SyncError(
                f"{str(folder)!r}, where weights are exchanged, is not a folder of this user's alone; remove it"
            ) from None
    return folder


def clear_exchange(run_id: str) -> None:
    """Remove what a run (also a killed one) left in shared memory; what is not of its making stays.

    Raises:
        SyncError: see ``exchange_folder``.
    """
    folder = exchange_folder(run_id)
    _remove_weights(folder)
    if not any(folder.iterdir()):
        folder.rmdir()


def _remove_weights(folder: Path) -> None:
    for file in folder.glob(_PATTERN):
        file.unlink()


class WeightFile:
    """The trainer's end: one file, written anew for each policy version while no engine reads."""

    def __init__(self, run_id: str) -> None:
        """Take over the run's folder; files of a trainer that is gone are removed."""
        folder = exchange_folder(run_id)
        _remove_weights(folder)
        # A name of its own: an engine that outlived the trainer must not take the new file for the one it has mapped.
        self.path = folder / _PATTERN.replace("*", uuid4().hex)
        self.path.touch(mode=0o600, exist_ok=False)
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="weight-digest")

    def write(self, parameters: Iterable[tuple[str, Tensor]], *, policy_version: int, full: bool) -> WeightManifest:
        """Write ``parameters`` (checkpoint names) for the engines and return the manifest.

        Raises:
            SyncError: shared memory is full.
        """
        digests: dict[str, str] = {}
        dtypes: list[str] = []
        shapes: list[tuple[int, ...]] = []
        end = 0
        for name, tensor in parameters:
            whole = tensor.detach().cpu().contiguous()
            digest = self._hasher.submit(tensor_digest, whole)
            begin, end = end, end + whole.nbytes + _padding(whole.nbytes)
            self._reserve(end)
            self._bytes[begin : begin + whole.nbytes].view(whole.dtype).copy_(whole.reshape(-1))
            # Before the next one is asked for: a gathered tensor is gone then.
            digests[name] = digest.result()
            dtypes.append(dtype_name(whole.dtype))
            shapes.append(tuple(whole.shape))
        return WeightManifest(
            policy_version=policy_version,
            path=str(self.path),
            digests=digests,
            dtypes=tuple(dtypes),
            shapes=tuple(shapes),
            num_bytes=end,
            full=full,
        )

    def _reserve(self, num_bytes: int) -> None:
        """Make the file at least this long."""
        if num_bytes <= len(self._bytes):
            return
        size = max(num_bytes, len(self._bytes) + max(_GROWTH_BYTES, len(self._bytes) // 8))
        try:
            # A page that is written for the first time when there is none left kills the process without a word.
            with self.path.open("ab") as file:
                os.posix_fallocate(file.fileno(), len(self._bytes), size - len(self._bytes))
        except OSError as error:
            raise SyncError(f"{size} bytes of weights do not fit into {self.path.parent}: {error.strerror}") from error
        self._bytes = torch.from_file(str(self.path), shared=True, size=size, dtype=torch.uint8)


class WeightReader:
    """An engine's end: the file mapped, every tensor a view of it."""

    def __init__(self) -> None:
        self._mapped: tuple[str, int] = ("", 0)
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def read(
        self, path: str, digests: Mapping[str, str], dtypes: Sequence[str], shapes: Sequence[Sequence[int]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(name, tensor)`` in the order written, none before all digests were found to be the announced ones.

        A loader that has taken half a layer cannot be told to start again.

        Raises:
            SyncError: the file is too short, or a tensor's content is another.
        """
        tensors = dict(zip(digests, self._views(path, dtypes, shapes), strict=True))
        with ThreadPoolExecutor(_HASHERS, thread_name_prefix="weight-digest") as hashers:
            found = dict(zip(tensors, hashers.map(tensor_digest, tensors.values()), strict=True))
        for name, digest in digests.items():
            if found[name] != digest:
                raise SyncError(f"{name!r} in shared memory is not what was announced")
        yield from tensors.items()

    def _views(self, path: str, dtypes: Sequence[str], shapes: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        sizes = [torch.Size(s).numel() * getattr(torch, d).itemsize for d, s in zip(dtypes, shapes, strict=True)]
        self._map(path, sum(size + _padding(size) for size in sizes))
        begin = 0
        for size, dtype, shape in zip(sizes, dtypes, shapes, strict=True):
            yield self._bytes[begin : begin + size].view(getattr(torch, dtype)).view(torch.Size(shape))
            begin += size + _padding(size)

    def _map(self, path: str, num_bytes: int) -> None:
        there = os.stat(path).st_size
        if there < num_bytes:
            raise SyncError(f"shared memory holds {there} bytes of weights, {num_bytes} were announced")
        if self._mapped != (path, there):
            self._bytes = torch.from_file(path, shared=True, size=there, dtype=torch.uint8)
            self._mapped = (path, there)


def _padding(num_bytes: int) -> int:
    return -num_bytes % _ALIGNMENT
