"""No text keeps a secret, in whatever writing it was put there, and other words stay as they are."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import quote

import pytest

from remote_rm.secret_words import Secrets

_KEY = "kQ7/+pw=Zr9_very.own"
_SECRETS = Secrets([_KEY], {})


def _half_percent(text: str) -> str:
    return "".join(f"%{ord(one):02X}" if index % 2 else one for index, one in enumerate(text))


def _half_json(text: str) -> str:
    return "".join(f"\\u{ord(one):04x}" if index % 3 else one for index, one in enumerate(text))


_WRITINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent": lambda text: quote(text, safe=""),
    "percent, slashes kept": quote,
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
    "every other percent": _half_percent,
    "json": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "half json": _half_json,
    "json in json": lambda text: json.dumps(json.dumps(_half_json(text))),
    "html": lambda text: "".join(f"&#{ord(one)};" for one in text),
    "html, hex": lambda text: "".join(f"&#x{ord(one):x};" for one in text),
    "string escapes": lambda text: "".join(f"\\x{ord(one):02x}" for one in text),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    **{
        f"base64 behind {shift} bytes": lambda text, shift=shift: base64.b64encode(
            b"a:b"[:shift] + text.encode() + b" and more"
        ).decode()
        for shift in range(4)
    },
    "base64 of addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
}


@pytest.mark.parametrize("write", _WRITINGS.values(), ids=_WRITINGS)
def test_a_known_secret_is_taken_out_in_every_writing(write: Callable[[str], str]) -> None:
    written = write(_KEY)
    found = _SECRETS.scrub(f"it said {written}, and that was all")
    assert "***" in found and found.startswith("it said ") and found.endswith(", and that was all")
    # Not a piece of it either, of what a secret could be put together from.
    left = found.removeprefix("it said ").removesuffix(", and that was all").replace("***", " ").split()
    assert all(len(piece) <= 16 for piece in left), left
    assert not any(written[at : at + 8] in found for at in range(4, len(written) - 24, 4))


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("http://user:pass@host/v1 failed", "http://***@host/v1 failed"),
        ("http%3A%2F%2Fuser%3Apass%40host", "http%3A%2F%2F***@host"),
        ("http:\\/\\/user:pass@host", "http:\\/\\/***@host"),
        ("GET /v1?api_key=abc&x=1", "GET /v1?api_key=***&x=1"),
        ('{"api_key": "abc def", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("key sk-proj-1234567890abcdef is wrong", "key *** is wrong"),
        ("hf_abcdefghijklmnop", "***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.abc", "***"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_unknown(text: str, scrubbed: str) -> None:
    assert Secrets([], {}).scrub(text) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "Response 1 is better.", "the judge gave no answer within 15 s", "mail me@example.org, token by token",
        "http://127.0.0.1:8000/v1 cannot be reached", "the bearer of bad news", "maximum context length is 4096 tokens",
    ],
)  # fmt: skip
def test_other_words_stay(text: str) -> None:
    assert Secrets(["sesame-open"], {}).scrub(text) == text


def test_variables_that_hold_secrets_are_known_and_others_are_not() -> None:
    environment = {
        "OPENAI_API_KEY": "open-sesame-1", "https_proxy": "http://me:pass%20word@proxy:80", "HOME": "/home/someone",
        "SHORT_KEY": "abc", "NOT_A_KEYBOARD": "qwertyuiop",
    }  # fmt: skip
    scrub = Secrets([None, ""], environment).scrub
    assert scrub("open-sesame-1 pass%20word pass word") == "*** *** ***"
    assert scrub("/home/someone abc qwertyuiop") == "/home/someone abc qwertyuiop"


def test_half_a_character_does_not_make_an_answer_unsendable() -> None:
    assert _SECRETS.scrub("a\ud800b") == "a?b"


def test_a_log_and_a_traceback_hold_no_secret() -> None:
    program = f"""
import logging
from remote_rm.secret_words import Secrets
Secrets([{_KEY!r}]).take_log()
logging.getLogger("uvicorn.error").error("it said %s", {_KEY!r})
try:
    raise ValueError({_KEY!r})
except ValueError:
    logging.getLogger("x").exception("no")
raise RuntimeError({_KEY!r})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 1
    assert _KEY not in ended.stderr
    assert "it said ***" in ended.stderr and "ValueError: ***" in ended.stderr and "RuntimeError: ***" in ended.stderr


def test_what_looks_like_a_thousand_beginnings_of_a_token_is_read_once() -> None:
    """80 kB of it took 24.6 s when every beginning was followed to the end of the text."""
    assert Secrets((), {}).scrub("-eyJ" * 250_000) == "-eyJ" * 250_000


def test_a_variable_made_from_a_file_ends_without_its_line_break() -> None:
    assert Secrets((), {"A_KEY": "abcdefgh12\n"}).scrub("it is abcdefgh12.") == "it is ***."


def test_a_variable_of_blanks_is_no_secret() -> None:
    assert Secrets((), {"A_KEY": " " * 20}).scrub("no stars here") == "no stars here"
