"""What decides how a model answers, as digests of its folder: the same bytes elsewhere are the same model."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import xxhash

from workers.models.folder import REWARD_HEAD_FOLDER

MODEL_PARTS = ("weights", "config", "tokenizer", "processor")
"""``config`` is also code and generation settings, ``tokenizer`` also the chat template and all other text."""

_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_CONFIG = ("config.json", "generation_config.json", "adapter_config.json")
_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
_FOLDERS = (REWARD_HEAD_FOLDER, "additional_chat_templates")
"""Beside them a model folder may hold anything, e.g. the runs that began from it."""
_FOR_PEOPLE = ("readme", "license", "notice")
_THREADS = 8


def model_digests(folder: str | Path) -> dict[str, str]:
    """A digest of each part; of no file at all where the folder has none of that part.

    Weights are read whole, at the speed of the disk, once in a process as long as they are not written again.
    """
    files = sorted(model_files(Path(folder)))
    with ThreadPoolExecutor(_THREADS) as threads:
        contents = list(threads.map(file_digest, (path for _, path in files)))
    parts: dict[str, str] = {}
    for part in MODEL_PARTS:
        whole = xxhash.xxh3_128()
        for (name, _), content in zip(files, contents, strict=True):
            if _part(name) == part:
                whole.update(name.encode() + b"\0" + content)
        parts[part] = whole.hexdigest()
    return parts


def model_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """What of a folder is part of a model: name inside it, and file."""
    for inside in (folder, *(folder / name for name in _FOLDERS)):
        for path in inside.iterdir() if inside.is_dir() else ():
            named = path.suffix in _SUFFIXES and not path.name.startswith(".")
            if named and not path.name.lower().startswith(_FOR_PEOPLE) and path.is_file():
                yield path.relative_to(folder).as_posix(), path


def _part(name: str) -> str:
    base = name.rpartition("/")[2]
    if base.endswith((".safetensors", ".safetensors.index.json")):
        return "weights"
    if base in _PROCESSOR:
        return "processor"
    return "config" if base in _CONFIG or base.endswith(".py") else "tokenizer"


def file_digest(path: Path) -> bytes:
    """XXH3 of a file, 128 bits, read once in a process as long as it is not written again."""
    state = path.stat()
    return _content(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _content(path: Path, inode: int, size: int, mtime_ns: int) -> bytes:
    """XXH3 of a file, 128 bits: it tells files apart, and guards against nobody.

    Args:
        inode, size, mtime_ns: A file with others is another file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).digest()
