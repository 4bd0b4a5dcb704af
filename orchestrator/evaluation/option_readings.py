"""How published scripts read an option's letter, each with its faults; ``answers.parse_option`` is ours.

None is what they cannot read. What each then does (asks a judge, draws at random) is told where it is counted.
"""

from collections.abc import Mapping
from typing import Literal

_CUT = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_LAST_WORDS, _SHORT = 5, 3
_TRIMMED = ",.!?;:'"
_TEXTS_FROM = 5
_SEED_LETTERS = "ABCD"


def option_by_kit(text: str, options: Mapping[str, str]) -> str | None:
    """The rules that VLMEvalKit tries before it asks a judge: one lone letter near the end, else one option's text.

    Punctuation is cut away, so "Vitamin C" chooses C; an answer of more than three words with a lone A says nothing.

    Source: VLMEvalKit, can_infer, which VL-RLHF calls for MMBench, MMMU and MathVista.
    """
    if any(refusal in text for refusal in _REFUSALS):
        return None
    words = text.translate(_CUT).split()
    found = [letter for letter in options if letter in words]
    lone = len(found) == 1 and not ("A" in words and len(words) > _SHORT)
    if lone and words.index(found[0]) > len(words) - _LAST_WORDS:
        return found[0]
    if not found and "Z" in words:  # how the kit's own judge says that nothing fits
        return None
    lower = text.lower()
    named = [letter for letter, option in options.items() if option.lower() in lower]
    return named[0] if len(named) == 1 else None


def option_by_mmmu(text: str, options: Mapping[str, str]) -> str | None:
    """MMMU's rules: letters in brackets, else letters between spaces, else, in long answers, options' texts; the last.

    Of several found the one that stands last counts. Nothing found is a random letter there.

    Source: MMMU, eval_utils.py, parse_multi_choice_response.
    """
    for mark in _TRIMMED:
        text = text.strip(mark)
    text = f" {text} "
    for shape in ("({})", " {} "):
        places = {letter: text.rfind(shape.format(letter)) for letter in options}
        if found := {letter: place for letter, place in places.items() if place >= 0}:
            return max(found, key=found.__getitem__)
    if len(text.split()) <= _TEXTS_FROM:
        return None
    lower = text.lower()
    places = {letter: lower.rfind(option.lower()) for letter, option in options.items()}
    found = {letter: place for letter, place in places.items() if place >= 0}
    return max(found, key=found.__getitem__) if found else None


SeedScript = Literal["judge", "sglang"]


def option_by_seed(text: str, options: Mapping[str, str], *, script: SeedScript) -> str | None:
    """VL-RLHF's rules for SEEDBench: the first character if it is A to D, so "Dog" is D.

    Args:
        script: ``sglang`` takes an option's exact text besides, the first of equal ones; ``judge`` asks a judge.
    Source: VL-RLHF, seedbench/extract_choice.py:31-66 and eval_generate_sgl.py:57-94. The first fails on an empty
        response, the second draws a letter at random where nothing is found.
    """
    if text and text[0] in _SEED_LETTERS:
        return text[0]
    if script == "judge":
        return None
    return next((letter for letter, option in options.items() if option == text), None)
