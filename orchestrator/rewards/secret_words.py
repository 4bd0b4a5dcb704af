"""A key or token taken out of what somebody answers, however it is written there."""

import base64
import re

STARS = "***"
_SHORTEST, _SHORTEST_ENCODED = 4, 6
_ESCAPE = r"\\{1,8}"
"""A backslash, itself escaped up to three times."""


class SecretWords:
    """Finds one secret: as it is, percent-encoded, escaped as JSON or HTML does, in base64 or in hex, whole or half."""

    def __init__(self, secret: str | None) -> None:
        long_enough = secret is not None and len(secret) >= _SHORTEST
        self._written = re.compile("|".join(_ways_to_write(secret))) if secret and long_enough else None

    def without(self, text: str) -> str:
        """The text with stars in its place. Cut it afterwards, or a piece of the secret may stay."""
        return text if self._written is None else self._written.sub(STARS, text)


def _ways_to_write(secret: str) -> list[str]:
    data = secret.encode(errors="replace")
    ways = ["".join(_one_character(letter) for letter in secret)]
    if len(data) >= _SHORTEST_ENCODED:
        ways.append(f"(?i:{data.hex()})")
    for bytes_before in range(3):
        # Only characters that no neighbouring byte has a bit in.
        coded = base64.b64encode(bytes(bytes_before) + data).decode().rstrip("=")
        ends_within = (bytes_before + len(data)) % 3 != 0
        sure = coded[(0, 2, 3)[bytes_before] : len(coded) - ends_within]
        if len(sure) >= _SHORTEST_ENCODED:
            ways.append(re.escape(sure).replace(r"\+", "[+-]").replace("/", "[/_]"))
    return ways


def _one_character(letter: str) -> str:
    number = ord(letter)
    encoded = "".join(f"%(?:25){{0,4}}(?i:{byte:02x})" for byte in letter.encode(errors="replace"))
    ways = [
        *(re.escape(letter), encoded, rf"{_ESCAPE}u0{{0,4}}(?i:{number:x})"),
        f"&(?:amp;)?#(?:0{{0,8}}{number}|[xX]0{{0,8}}(?i:{number:x}));",
    ]
    return f"(?:{'|'.join(ways if letter.isalnum() else [*ways, _ESCAPE + re.escape(letter)])})"
