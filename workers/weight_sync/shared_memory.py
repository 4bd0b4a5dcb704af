"""Weights through safetensors files in shared memory: the transport of one machine, CPU or GPU.

The trainer writes files of bounded size under ``/dev/shm``; engines map them, so the bytes exist once per node.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from workers.weight_sync.manifest import WeightManifest, tensor_digest

_CHUNK_BYTES = 1 << 30
_ROOT = Path("/dev/shm")


def exchange_folder(run_id: str) -> Path:
    """The folder one run exchanges weights through; created if missing."""
    root = _ROOT if _ROOT.is_dir() else Path(tempfile.gettempdir())
    folder = root / f"raylign-{run_id}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def clear_exchange(run_id: str) -> None:
    """Remove what a run (also a killed one) left in shared memory."""
    folder = exchange_folder(run_id)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def publish(
    parameters: Iterable[tuple[str, Tensor]], *, run_id: str, policy_version: int, full: bool
) -> WeightManifest:
    """Write ``parameters`` (checkpoint names) for the engines and return the manifest.

    Earlier versions of the run are removed first: engines copy on load and keep no mapping.
    """
    folder = exchange_folder(run_id)
    for old in folder.iterdir():
        old.unlink()
    paths: list[str] = []
    digests: dict[str, str] = {}
    chunk: dict[str, Tensor] = {}
    total = chunk_bytes = 0
    for name, tensor in parameters:
        copy = tensor.detach().cpu().contiguous()
        chunk[name] = copy
        digests[name] = tensor_digest(copy)
        chunk_bytes += copy.numel() * copy.element_size()
        if chunk_bytes >= _CHUNK_BYTES:
            paths.append(_write(folder, policy_version, len(paths), chunk))
            total, chunk, chunk_bytes = total + chunk_bytes, {}, 0
    if chunk:
        paths.append(_write(folder, policy_version, len(paths), chunk))
    return WeightManifest(
        policy_version=policy_version,
        paths=tuple(paths),
        digests=digests,
        num_bytes=total + chunk_bytes,
        full=full,
    )


def read(paths: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield ``(name, tensor)`` from published files, mapped rather than copied."""
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)


def _write(folder: Path, version: int, index: int, tensors: dict[str, Tensor]) -> str:
    final = folder / f"v{version:08d}-{index:03d}.safetensors"
    partial = final.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, final)
    return str(final)
