"""Files that are named by what they hold, for pictures of rows and frames of videos."""

import hashlib
import os
from pathlib import Path

from orchestrator.errors import RefusedInput


class UnwritableFolder(RefusedInput):
    """What is at fault is the folder, not what is written into it."""


def written(folder: Path, data: bytes, *, suffix: str) -> Path:
    """The file of these bytes, named by them; nobody may have changed one that is there.

    Raises:
        UnwritableFolder: the folder cannot be written.
    """
    path = folder / f"{hashlib.sha256(data).hexdigest()}.{suffix}"
    try:
        if not path.is_file() or path.read_bytes() != data:
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.unlink(missing_ok=True)
            with partial.open("xb") as file:
                file.write(data)
            partial.replace(path)
    except OSError as error:
        raise UnwritableFolder(f"pictures cannot be written into {str(folder)!r} ({error.strerror})") from error
    return path.resolve()
