"""Keys and tokens that options name files of: in no line that the doctor prints, whoever said it."""

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.config.schema import TrainConfig

_MOST_BYTES = 1 << 16
"""No key is longer; a file that is, is something else."""


def secrets_of(configs: Iterable[TrainConfig]) -> list[str]:
    """What stands in those files, the longest first; one that cannot be read is refused by its own check."""
    named = {path for c in configs for path in (c.reward.token_file, c.reward.judge_key_file) if path is not None}
    found = {text for path in named if (text := _text(Path(path)))}
    return sorted(found, key=len, reverse=True)


def without(secrets: Sequence[str], words: str) -> str:
    """The words with every secret struck out."""
    for secret in secrets:
        words = words.replace(secret, "***")
    return words


def _text(file: Path) -> str:
    try:
        about = file.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST_BYTES:
            return ""
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
