"""How published scripts judge an answer to an open question, with their faults; ``mmmu.judge_open`` is ours."""

import re
from collections.abc import Sequence

_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NOTHING = {":", ",", ".", "!", "?", ";", "'"}
_NUMBERS = tuple(
    re.compile(shape)
    for shape in (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+",  # the look behind finds the same, in one pass over many digits
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    )
)
_DECIMALS = 2


def open_by_mmmu(text: str, truths: Sequence[str]) -> bool:
    """Whether MMMU's script finds one of the truths among what it takes out of the response; it never finds nothing.

    A truth that is a text is right anywhere inside a piece, "no" in "unknown" too; a number is right if any number of
    the response equals it, both rounded to two places.

    Source: MMMU, eval_utils.py, parse_open_response and eval_open.
    """
    wanted = [one for truth in truths for one in _normalised(truth)]
    pieces = _key_pieces(text)
    numbers = [found for piece in pieces for shape in _NUMBERS for found in shape.findall(piece)]
    for said in (one for piece in [*pieces, *numbers] for one in _normalised(piece)):
        if isinstance(said, str):
            if any(isinstance(truth, str) and truth in said for truth in wanted):
                return True
        elif said in wanted:
            return True
    return False


def _key_pieces(text: str) -> list[str]:
    """Of each sentence the shortest of what follows a word that may announce an answer; the whole text without any.

    The text is put in lower case before it is cut at capitals, so that line breaks alone cut it.
    """
    text = text.strip().strip(".").lower()
    found = []
    sentences = _SENTENCES.split(text)
    for number, sentence in enumerate(sentences, start=1):
        words = (*_INDICATORS, "=") if number == len(sentences) else _INDICATORS
        behind = [sentence.split(word)[-1].strip() for word in words if word in sentence]
        shortest = _first_shortest(behind)
        if shortest and shortest not in _NOTHING:
            found.append(shortest)
    return found or [text]


def _first_shortest(pieces: Sequence[str]) -> str:
    """The first of the shortest; what is empty gives way to the next, as there."""
    shortest = ""
    for piece in pieces:
        if not shortest or len(piece) < len(shortest):
            shortest = piece
    return shortest


def _normalised(text: str) -> list[str | float]:
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), _DECIMALS)]
    except ValueError:
        lower = text.lower()
        # A single letter would be found in any word.
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]
