"""The one place where keys, tokens and credentials are taken out of a text before it leaves the process.

By value, whoever repeats it: as it is, percent-encoded, escaped as JSON, HTML or a string would, in base64 or in hex,
or half so. And by shape: bearer headers, credentials in addresses, what is called a key or a token, known prefixes.
"""

import base64
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import TracebackType
from urllib.parse import unquote, urlsplit

STARS = "***"
_SHORTEST = 4
_SHORTEST_OF_ENVIRONMENT = 8
_SHORTEST_ENCODED = 6
_KEPT_RESULTS = 4096
_ESCAPE = r"\\{1,8}"
"""A backslash, itself escaped up to three times."""
_SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.IGNORECASE)
_PROXY_VARIABLE = re.compile(r"_proxy\Z", re.IGNORECASE)
_CALLED = r"(?:api[_-]?key|access[_-]?token|auth[_-]?token|token|secret|password|passwd|signature)"
_SHAPES = re.compile(
    r"(?P<header>\b(?:bearer|basic)(?:\s+|%20|\+))[A-Za-z0-9._~+/=%-]{6,}"
    # "credentials@" of an address, its slashes perhaps encoded
    r"|(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{1,20}(?::|%3[aA])(?:/|\\/|%2[fF]){2})[^\s/\"'<>]{1,512}(?:@|%40)"
    rf"|(?P<parameter>[?&]{_CALLED}=)[^\s&\"'<>]+"
    rf"|(?P<field>\b{_CALLED}\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]+"
    r"|\b(?:sk-|rk-|hf_|gh[opsur]_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza)[A-Za-z0-9_-]{8,}"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    re.IGNORECASE,
)
_KEPT = ("header", "scheme", "parameter", "field")


class Secrets:
    """What this process knows and nobody else is to hear of."""

    def __init__(self, values: Iterable[str | None] = (), environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            values: Keys and tokens; None and what is too short to be one does not count.
            environment: Variables whose names end as those of secrets do, and credentials of proxies in it.
        """
        known = {value for value in values if value and len(value) >= _SHORTEST} | _of_environment(environment)
        # The longest first: a secret may hold another.
        spelled = [form for value in sorted(known, key=len, reverse=True) for form in _forms(value)]
        self._known = re.compile("|".join(spelled)) if spelled else None
        self.scrub = lru_cache(_KEPT_RESULTS)(self._scrub)
        """The text without secrets, and without halves of characters. Cut it afterwards, or a piece of one may stay."""

    def _scrub(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(STARS, text)
        return _SHAPES.sub(_starred, text).encode(errors="replace").decode()

    def take_log(self) -> None:
        """From here on whatever this process logs, or ends with, is without them."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter(self))
        logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)

        def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            logging.getLogger(__name__).critical("the service ends", exc_info=(kind, error, trace))

        sys.excepthook = told


class _Formatter(logging.Formatter):
    def __init__(self, secrets: Secrets) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.scrub(super().format(record))


def _of_environment(environment: Mapping[str, str]) -> set[str]:
    found = set()
    for name, value in environment.items():
        if _SECRET_VARIABLE.search(name) and len(value.strip()) >= _SHORTEST_OF_ENVIRONMENT:
            found.add(value.strip())
        elif _PROXY_VARIABLE.search(name):
            found |= _credentials_of(value)
    return found


def _credentials_of(address: str) -> set[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        return set()
    return {one for one in (password, unquote(password or "")) if one and len(one) >= _SHORTEST}


def _forms(value: str) -> list[str]:
    """Expressions that match a secret however it is written."""
    data = value.encode(errors="replace")
    hexed = data.hex()
    forms = ["".join(map(_character, value)), f"(?i:{hexed})" if len(hexed) >= 2 * _SHORTEST_ENCODED else ""]
    for shift in range(3):
        # Three bytes are four characters: at both ends some hold bits of what stands beside the secret.
        written = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        first, last = (0, 2, 3)[shift], len(written) - (1 if (shift + len(data)) % 3 else 0)
        inner = written[first:last]
        if len(inner) >= _SHORTEST_ENCODED:
            forms.append(re.escape(inner).replace(r"\+", "[+-]").replace("/", "[/_]"))
    return [form for form in forms if form]


def _character(one: str) -> str:
    """A character as it is, or escaped in one of the ways of addresses, JSON, HTML and strings, once or twice."""
    code = ord(one)
    percent = "".join(f"%(?:25){{0,4}}(?i:{byte:02x})" for byte in one.encode(errors="replace"))
    ways = [
        re.escape(one),
        percent,
        rf"{_ESCAPE}u\{{?0{{0,8}}(?i:{code:x})\}}?",
        f"&(?:amp;)?#(?:0{{0,8}}{code}|[xX]0{{0,8}}(?i:{code:x}));",
    ]
    if code < 256:
        ways.append(rf"{_ESCAPE}x(?i:{code:02x})")
    if not one.isalnum():
        ways.append(rf"{_ESCAPE}{re.escape(one)}")
    if one == " ":
        ways.append(r"\+")
    return f"(?:{'|'.join(ways)})"


def _starred(match: re.Match[str]) -> str:
    kept = next((match[name] for name in _KEPT if match[name]), "")
    return f"{kept}{STARS}{'@' if match['scheme'] else ''}"
