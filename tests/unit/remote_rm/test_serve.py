"""The command line: what it says, and what it refuses with exit code 2 and one line."""

import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from remote_rm.serve import main
from tests.contract.service import serving


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a start that must fail."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    (line,) = err.splitlines()
    assert "s3" not in line
    assert len(line) <= 300 and line.isprintable()
    return line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is not loopback, so --token-file is needed"),
        (("--host", "example.org"), "--host example.org is not loopback"),
        (("--judge", "openai"), "--judge-url is not set"),
        (("--judge", "openai", "--judge-url", "http://x/v1"), "--judge-model is not set"),
        (("--judge", "openai", "--judge-url", "x:1", "--judge-model", "m"), "should start with http"),
        (
            ("--judge", "openai", "--judge-url", "http://u:s3@h/v1", "--judge-model", "m"),
            "--judge-url holds credentials",
        ),
        (("--judge", "openai", "--judge-url", "http://s3%40h/v1", "--judge-model", "m"), "holds credentials"),
        (("--judge", "openai", "--judge-url", "http://h/?key=s3", "--judge-model", "m"), "holds a query string"),
        (("--token-file", "no/such/file"), "no/such/file"),
        (("--cache", "/dev/null/v.sqlite"), "/dev/null"),
        (("--port", "70000"), "--port 70000 should be from 0 to 65535"),
        (("--judge-concurrency", "0"), "--judge-concurrency 0 should be at least 1"),
        (("--port", "x"), "Error parsing --port"),
        (("--port", "9" * 5000), "Error parsing --port"),
        (("--judge", "x" * 100_000), "invalid choice"),
        (("--function-workers", f"{10**30}"), "--function-workers should be at most 10000"),
        (("--function-memory-gib", "1e300"), "--function-memory-gib should be at most 1e+06"),
        (("--token-file", "n" * 256), "File name too long"),
        (("--token-file", "/dev/zero"), "'/dev/zero' is no plain file"),
        (("--cache", "a\0"), "--cache holds a NUL character"),
        (("--judge", "openai", "--judge-url", "http://h:99999", "--judge-model", "m"), "port cannot be read"),
        (("--judge", "openai", "--judge-url", "http://h o/", "--judge-model", "m"), "holds a blank"),
        (("--judge-timeout-s", "0"), "--judge-timeout-s 0 should be above 0"),
    ],
)
def test_refusals(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str) -> None:
    assert told in _refusal(capsys, *arguments)


def test_a_refusal_of_the_real_command_is_one_line_and_exit_code_2() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "remote_rm.serve", "--host", "0.0.0.0"], capture_output=True, text=True, timeout=600
    )
    line = "remote_rm.serve: --host 0.0.0.0 is not loopback, so --token-file is needed\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1 port {port}" in _refusal(capsys, "--port", str(port))


def test_an_empty_token_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    assert "is empty" in _refusal(capsys, "--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))


def test_it_answers_as_soon_as_it_says_so_and_ends_cleanly_when_told(tmp_path: Path) -> None:
    with serving("--cache", str(tmp_path / "new" / "v.sqlite")) as (url, process):
        told = {"status": "ok", "judge": "rules", "scoring": "strict", "detail": None}
        assert httpx.get(f"{url}/healthz").json() == told
        process.terminate()
        process.wait(timeout=20)
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_other_addresses_work_with_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serving("--host", "0.0.0.0", "--token-file", str(tmp_path / "token")) as (url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/healthz").status_code == 401
        assert httpx.get(f"{url}/healthz", headers={"Authorization": "Bearer secret"}).status_code == 200
