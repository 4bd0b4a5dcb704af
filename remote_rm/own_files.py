"""Files of ours: nothing is read from or written to what somebody else has put in their place.

A pipe would be waited for, a link written through, and the file of another user can be changed by that user.
"""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

_MOST_SECRET_BYTES = 1 << 16
_SUPERUSER = 0


def read_text(path: Path) -> str:
    """What a small file of ours says. It may stand behind a link of ours, as a mounted secret does.

    Raises:
        ValueError: it is no plain file, another user's, no text, or longer than 64 KiB.
        OSError: it cannot be read.
    """
    if path.is_symlink():
        _refuse_foreign(os.lstat(path), f"the link {str(path)!r}")
    data = _read(path, os.O_RDONLY)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text; it should hold a secret") from error


def prepare(path: Path) -> os.stat_result:
    """Make an empty file that only we can read, with its folder, or look at the one that is there.

    Raises:
        ValueError: it is a link, no plain file, or another user's, or its folder is.
        OSError: it cannot be opened or made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(os.stat(path.parent), f"the folder of {str(path)!r}")
    handle = _opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        return os.fstat(handle)
    finally:
        os.close(handle)


def random_key(path: Path) -> bytes:
    """The 32 random bytes that a file of ours holds; it is made where there is none, and appears whole.

    Raises:
        ValueError: it is a link, no plain file, another user's, readable by everybody, or holds something else.
        OSError: it cannot be read or made.
    """
    if not os.path.lexists(path):
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(secrets.token_bytes(32).hex().encode())
                opened.flush()
                os.fsync(handle)
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(fresh, path)
        finally:
            fresh.unlink()
    text = _read(path, os.O_RDONLY | os.O_NOFOLLOW, is_private=True)
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError(f"{str(path)!r} holds no key; without it all verdicts of its cache are asked for again")
    return key


def refuse_planted(path: Path) -> None:
    """Refuse what bears a name that a library will open for us; nothing where there is nothing.

    Raises:
        ValueError: it is a link, no plain file, or another user's.
    """
    if os.path.lexists(path):
        os.close(_opened(path, os.O_RDONLY | os.O_NOFOLLOW))


def _read(path: Path, flags: int, *, is_private: bool = False) -> bytes:
    handle = _opened(path, flags)
    with os.fdopen(handle, "rb") as opened:
        # Its group may have been let in on purpose, as Kubernetes does for a volume.
        if is_private and os.fstat(handle).st_mode & 0o007:
            raise ValueError(f"{str(path)!r} can be read by everybody; it should have the mode 0600")
        data = opened.read(_MOST_SECRET_BYTES + 1)
    if len(data) > _MOST_SECRET_BYTES:
        raise ValueError(f"{str(path)!r} is longer than {_MOST_SECRET_BYTES} bytes")
    return data


def _opened(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise ValueError(f"{str(path)!r} is a link") from error
        if error.errno == errno.ENXIO:
            raise ValueError(f"{str(path)!r} is no plain file") from error
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{str(path)!r} is no plain file")
        _refuse_foreign(found, repr(str(path)))
    except ValueError:
        os.close(handle)
        raise
    return handle


def _refuse_foreign(found: os.stat_result, name: str) -> None:
    if found.st_uid not in (os.geteuid(), _SUPERUSER):
        raise ValueError(f"{name} belongs to user {found.st_uid}, and this runs as user {os.geteuid()}")
