"""What somebody else has put where a file of ours is expected is refused by name, and nobody waits for it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_rm import own_files
from remote_rm.judges.protocol import Judgement
from remote_rm.serve import main
from remote_rm.verdict_cache import CacheKey, VerdictCache

_STRANGER = 54321
_IS_ROOT = os.geteuid() == 0


@contextmanager
def _soon() -> Iterator[None]:
    """A pipe that is opened as a file is waited for until somebody writes into it: an alarm ends that."""

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("")
    path.symlink_to(path.parent / "elsewhere")


def _hanging_link(path: Path) -> None:
    path.symlink_to(path.parent / "not yet")


def _folder(path: Path) -> None:
    path.mkdir()


def _strangers(path: Path) -> None:
    path.write_text("")
    os.chown(path, _STRANGER, -1)


_ROOT_ONLY = pytest.mark.skipif(not _IS_ROOT, reason="only root can give files away")
_PLANTED = [_pipe, _link, _hanging_link, _folder, pytest.param(_strangers, marks=_ROOT_ONLY)]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".key"])
@pytest.mark.parametrize("plant", _PLANTED)
def test_no_cache_is_opened_through_what_was_planted(
    plant: Callable[[Path], None], suffix: str, tmp_path: Path
) -> None:
    plant(tmp_path / f"v.sqlite{suffix}")
    with _soon(), pytest.raises(ValueError, match=rf"--cache .*v\.sqlite.*{suffix}"):
        VerdictCache(tmp_path / "v.sqlite")
    assert not (tmp_path / "not yet").exists()
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes() == b""


@_ROOT_ONLY
def test_the_folder_of_a_cache_is_not_a_strangers(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", _STRANGER, -1)
    with pytest.raises(ValueError, match=r"the folder of '.*' belongs to user 54321, and this runs as user 0"):
        VerdictCache(tmp_path / "theirs" / "v.sqlite")
    assert list((tmp_path / "theirs").iterdir()) == []


def test_a_cache_and_its_key_are_ours_alone_and_the_key_stays(tmp_path: Path) -> None:
    key = CacheKey.of("judge", "1", "x", "y")
    for _ in range(2):
        cache = VerdictCache(tmp_path / "v.sqlite")
        cache.put(key, Judgement("consistent", "1"))
        assert cache.get(key) == Judgement("consistent", "1")
        cache.close()
    assert [f"{path.name} {path.stat().st_mode & 0o777:o}" for path in sorted(tmp_path.iterdir())] == [
        "v.sqlite 600",
        "v.sqlite.key 600",
    ]
    os.chmod(tmp_path / "v.sqlite.key", 0o644)
    with pytest.raises(ValueError, match=r"v\.sqlite\.key' can be read by everybody"):
        VerdictCache(tmp_path / "v.sqlite")
    (tmp_path / "v.sqlite.key").write_text("short")
    os.chmod(tmp_path / "v.sqlite.key", 0o600)
    with pytest.raises(ValueError, match=r"v\.sqlite\.key' holds no key"):
        VerdictCache(tmp_path / "v.sqlite")


@pytest.mark.parametrize("plant", [_pipe, _folder, pytest.param(_strangers, marks=_ROOT_ONLY)])
@pytest.mark.parametrize("option", ["--token-file", "--judge-key-file"])
def test_no_secret_is_read_from_what_was_planted(
    plant: Callable[[Path], None], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path / "secret")
    judge = ["--judge", "openai", "--judge-url", "http://h/v1", "--judge-model", "m"]
    with _soon(), pytest.raises(SystemExit) as ended:
        main([*judge, option, str(tmp_path / "secret")])
    assert ended.value.code == 2
    assert str(tmp_path / "secret") in capsys.readouterr().err


def test_a_secret_may_stand_behind_links_of_ours_as_a_mounted_one_does(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text("secret\n")
    (tmp_path / "token").symlink_to("..data/token")
    assert own_files.read_text(tmp_path / "token") == "secret\n"
    (tmp_path / "long").write_text("x" * 70_000)
    with pytest.raises(ValueError, match="is longer than 65536 bytes"):
        own_files.read_text(tmp_path / "long")


@_ROOT_ONLY
def test_a_link_of_a_stranger_is_not_followed_to_a_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "link").symlink_to("token")
    os.chown(tmp_path / "link", _STRANGER, -1, follow_symlinks=False)
    with pytest.raises(ValueError, match=r"the link '.*' belongs to user 54321"):
        own_files.read_text(tmp_path / "link")
