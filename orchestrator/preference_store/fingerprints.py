"""What the numbers of a side table depend on, as digests of the files they come from."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from orchestrator.preference_store.side_tables import Fingerprint
from orchestrator.preference_store.store import PreferenceStore
from workers.models.loading import ModelSpec

_PREPROCESSING_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "tokenizer.json")


def table_fingerprint(store: PreferenceStore | None, model: ModelSpec, *, asked: str | None = None) -> Fingerprint:
    """Of numbers that a model gives to a store's responses.

    Args:
        store: None for responses that are in no store.
        model: How it is loaded.
        asked: see ``Fingerprint``.
    """
    folder = Path(model.path)
    return Fingerprint(
        store=store.manifest.fingerprint if store is not None else "",
        model=digest(sorted(folder.rglob("*.safetensors"))),
        chat_template=digest([folder / name for name in _TEMPLATE_FILES]),
        preprocessing=digest([folder / name for name in _PREPROCESSING_FILES]),
        dtype=str(model.torch_dtype).removeprefix("torch.")
        + (f", weights in {model.quantize}" if model.quantize else ""),
        asked=asked,
    )


def digest(files: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of those files that exist."""
    whole = hashlib.sha256()
    for path in files:
        if path.is_file():
            whole.update(path.name.encode())
            state = path.stat()
            whole.update(_content(path, state.st_size, state.st_mtime_ns))
    return whole.hexdigest()


@lru_cache(maxsize=1024)
def _content(path: Path, size: int, mtime_ns: int) -> bytes:
    """SHA-256 of a file; a run asks for that of its weights at every stage, and they take a while to read.

    Args:
        size, mtime_ns: A file with others is another file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
