"""What a checkpoint says of itself, checked: its manifest, sealed by a digest, has one of every file beside it.

The digests tell a checkpoint that a disk, a copy or a person has changed; they guard against nobody who rewrites them.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from orchestrator.run.ahead import FILE
from workers.models.digests import file_digest, model_files

MANIFEST = "manifest.json"
_FILES, _SEAL = "files", "seal"
_LOADED = ("policy", "state", "critic/policy", "critic/state")
_THREADS = 8
_Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]


class DamagedCheckpoint(ValueError):
    """What a checkpoint has that it should not have, behind "has"."""


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Source(_Told):
    name: str
    num_prompts: _Count
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    taken: _Count


class _Cursor(_Told):
    num_prompts: _Count
    seed: int
    epoch: _Count
    position: _Count
    sources: list[_Source] = []


class _Manifest(_Told):
    """Of what a resume continues from; the rest is for people."""

    step: _Count
    num_updates: _Count
    policy_version: _Count
    cursor: _Cursor
    mismatch_strikes: _Count
    num_critic_updates: _Count = 0
    learner_state: dict[str, FiniteFloat] = {}
    ahead: Literal["ahead.parquet"] = FILE


def sealed(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The text of the manifest of a checkpoint whose files are all there and will not change."""
    told = {name: value for name, value in manifest.items() if name != _SEAL}
    whole = json.loads(json.dumps({**told, _FILES: _digests(folder, _names(folder))}))
    return json.dumps({**whole, _SEAL: _seal(whole)}, indent=2) + "\n"


def read_sealed(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint that a run continues from.

    Raises:
        DamagedCheckpoint: it is no JSON object, has an impossible value, is that of another step than its folder, was
            changed since it was written, or is of a version that sealed none.
    """
    manifest = read_object(checkpoint)
    try:
        told = _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise DamagedCheckpoint(f"a {MANIFEST} with a bad {field}: {first['msg']}") from error
    if checkpoint.name != f"step_{told.step:06d}":
        raise DamagedCheckpoint(f"a {MANIFEST} of another step: step = {told.step}")
    _refuse_broken_seal(checkpoint, manifest)
    return manifest


def refuse_changed_files(checkpoint: Path, inside: str = "") -> None:
    """Compare the files of a checkpoint with the digests in its manifest; one of an earlier version has none.

    They are read whole, at the speed of the disk, once in a process as long as they are not written again.

    Args:
        inside: Folder that alone is looked at.
    Raises:
        DamagedCheckpoint: naming a file that is gone, has changed, or is loaded and was not there.
    """
    manifest = read_object(checkpoint)
    if _SEAL not in manifest and _FILES not in manifest:
        return
    _refuse_broken_seal(checkpoint, manifest)
    files = {name: told for name, told in manifest[_FILES].items() if name.startswith(inside)}
    gone = next((name for name in files if not (checkpoint / name).is_file()), None)
    if gone is not None:
        raise DamagedCheckpoint(f"no file {gone!r}, which its {MANIFEST} names")
    found = _digests(checkpoint, list(files))
    changed = next((name for name, told in files.items() if found[name] != told), None)
    if changed is not None:
        raise DamagedCheckpoint(f"a file {changed!r} that has changed since it was written")
    loaded = (f"{part}/{name}" for part in _LOADED for name, _ in model_files(checkpoint / part))
    added = next((name for name in sorted(loaded) if name.startswith(inside) and name not in files), None)
    if added is not None:
        raise DamagedCheckpoint(f"a file {added!r} that its {MANIFEST} does not name")


def read_object(checkpoint: Path) -> dict[str, Any]:
    """The manifest, which must be a JSON object.

    Raises:
        DamagedCheckpoint: it is something else.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"a {MANIFEST} that is no JSON object") from error
    if not isinstance(manifest, dict):
        raise DamagedCheckpoint(f"a {MANIFEST} that is no JSON object")
    return manifest


def _refuse_broken_seal(checkpoint: Path, manifest: dict[str, Any]) -> None:
    files, seal = manifest.get(_FILES), manifest.get(_SEAL)
    if not isinstance(files, dict) or seal is None:
        raise DamagedCheckpoint(f"a {MANIFEST} without digests of its files, as an older version wrote it")
    if _seal({name: value for name, value in manifest.items() if name != _SEAL}) != seal:
        raise DamagedCheckpoint(f"a {MANIFEST} that has changed since it was written")


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files if path != folder / MANIFEST)


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(names, threads.map(lambda name: file_digest(folder / name).hex(), names), strict=True))
