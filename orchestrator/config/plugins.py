"""Objects from the user's own files, outside the repository: ``FILE.py:NAME``."""

import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator.errors import RefusedInput, one_line
from workers.given_files import SMALL, UnusableFile, read_bytes

_PREFIX = "plugin_of_"
_MOST_SAID, _MOST_SHOWN = 4096, 200


def load_object(text: str, *, option: str) -> Any:
    """What ``FILE.py:NAME`` names. A file is run once, also when it is asked for several of its names.

    Args:
        option: Where the text was written, for the refusal, e.g. ``data.reader``.
    Raises:
        RefusedInput: the text is not of this form, there is no such file, it cannot be run, or it lacks the name.
    """
    path, name = _parts(text, option)
    module = _module(path, plugin_digest(text, option=option), f"{option} = {text!r}")
    if not hasattr(module, name):
        raise RefusedInput(f"{option} = {text!r}: {str(path)!r} has nothing of the name {name!r}")
    return getattr(module, name)


def plugin_digest(text: str, *, option: str) -> str:
    """SHA-256 of the file that ``FILE.py:NAME`` names, whose content is part of what a run is.

    Raises:
        RefusedInput: see ``load_object``.
    """
    path, _ = _parts(text, option)
    try:
        return hashlib.sha256(read_bytes(path, most=SMALL)).hexdigest()
    except UnusableFile as error:
        raise RefusedInput(f"{option} = {text!r}: {str(path)!r} {error}") from error


def plugin_modules() -> list[ModuleType]:
    """What was loaded; no other process can import it, so whatever of it is sent there goes by value."""
    return [module for name, module in sys.modules.items() if name.startswith(_PREFIX)]


def _parts(text: str, option: str) -> tuple[Path, str]:
    file, _, name = text.rpartition(":")
    if not (file.endswith(".py") and name.isidentifier()):
        raise RefusedInput(f"{option} = {text!r}: expected FILE.py:NAME")
    return Path(file), name


def _module(path: Path, digest: str, said: str) -> ModuleType:
    # Named after its content and registered before it runs: dataclasses and pickle look their module up by its name.
    name = f"{_PREFIX}{path.stem}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path, loader=_AsItStands(path))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        with _overheard(path):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise
        raise RefusedInput(f"{said}: {str(path)!r} cannot be run ({type(error).__name__}: {_words(error)})") from error
    return module


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - an exception class of the user's own
        return f"which cannot be shown: {type(other).__name__}"


@contextmanager
def _overheard(path: Path) -> Iterator[None]:
    """What the file prints while it is run is told by its beginning: this command's own words must stand out."""
    said = _Said()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    finally:
        if said.size:
            head = one_line("".join(said.head), most=_MOST_SHOWN)
            sys.stderr.write(f"{one_line(str(path), most=_MOST_SHOWN)} printed {said.size} characters: {head}\n")


class _Said(io.TextIOBase):
    """Keeps the beginning of what is written and counts the rest."""

    def __init__(self) -> None:
        self.head, self.size = list[str](), 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.size < _MOST_SAID:
            self.head.append(text[:_MOST_SAID])
        self.size += len(text)
        return len(text)


class _AsItStands(SourceLoader):
    """Neither reads nor leaves compiled files, which tell an edit by its second and its length."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        return read_bytes(path, most=SMALL)
