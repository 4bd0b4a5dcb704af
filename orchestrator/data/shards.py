"""The files that a path of data stands for: itself, the shards of a folder, or what ``datasets`` saved in one."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from orchestrator.config.data_folders import SPLITS_FILE, STATE_FILE, files_with_rows
from orchestrator.data.rows import file_sha256
from orchestrator.errors import RefusedInput

_SPLIT = re.compile(
    r"(?:^|[-_.])(train(?:ing)?|test|val|valid|validation|dev|eval|evaluation)(?=\d|set|split|[-_.]|$)", re.IGNORECASE
)
"""A part of a name by which the files of a split are called."""


def beside(path: Path) -> Path:
    """Where media are that are named beside the data: the folder of a file, or the folder itself."""
    return path if path.is_dir() else path.parent


def data_files(path: Path) -> list[Path]:
    """The files of a path, in the order of their names, or in that which ``datasets`` has noted.

    Raises:
        RefusedInput: they are of several kinds or splits, or one that was noted is missing.
    """
    if not path.is_dir():
        return [path]
    if (path / SPLITS_FILE).is_file():
        names = _noted(path / SPLITS_FILE).get("splits")
        told = ", ".join(map(str, names)) if isinstance(names, list) else "several"
        raise RefusedInput(f"data folder {str(path)!r} holds the splits {told}: name the folder of one")
    if (path / STATE_FILE).is_file():
        return _saved(path)
    files = files_with_rows(path)
    if not files:
        raise RefusedInput(f"data folder {str(path)!r} holds no file with rows")
    if len(kinds := sorted({file.suffix for file in files})) > 1:
        raise RefusedInput(f"data folder {str(path)!r} holds {' and '.join(kinds)} files, expected shards of one kind")
    splits = {found[1].lower() if (found := _SPLIT.search(file.stem)) else "" for file in files}
    if len(splits) > 1:
        told = ", ".join(repr(file.name) for file in files[:4])
        raise RefusedInput(f"data folder {str(path)!r} holds more than one split ({told}): name a file, or part them")
    return files


def data_sha256(path: Path) -> str:
    """Digest of a data file, or of the names and bytes of a folder's shards.

    Raises:
        RefusedInput: there is none.
    """
    if not path.is_dir():
        return file_sha256(path)
    parts = [[file.name, file_sha256(file)] for file in data_files(path)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _saved(folder: Path) -> list[Path]:
    state = _noted(folder / STATE_FILE)
    noted = state.get("_data_files")
    if not isinstance(noted, list) or not all(isinstance(one, dict) and "filename" in one for one in noted):
        raise RefusedInput(f"data folder {str(folder)!r} has a {STATE_FILE} that names no data files")
    if state.get("_indices_data_files"):  # of old versions: the rows are others than the files have, or in other order
        raise RefusedInput(f"data folder {str(folder)!r} was saved with a selection apart: save it again, flattened")
    files = [folder / Path(str(one["filename"])).name for one in noted]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise RefusedInput(f"data folder {str(folder)!r} lacks {missing.name!r}, which its {STATE_FILE} names")
    return files


def _noted(file: Path) -> dict[str, Any]:
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedInput(f"{str(file)!r} cannot be read as JSON") from error
    if not isinstance(noted, dict):
        raise RefusedInput(f"{str(file)!r} is no JSON object")
    return noted
