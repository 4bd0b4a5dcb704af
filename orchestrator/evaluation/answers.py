"""Reading answers out of responses: yes or no, an option's letter.

What does not say it plainly is None, never a guess.
"""

import re
from collections.abc import Mapping
from typing import Literal

YesNo = Literal["yes", "no"]

_WORD = re.compile(r"(?<![\w-])(yes|no)(?![\w-])", re.IGNORECASE)
_SET_OFF = re.compile(r"(?<![\w-])(yes|no)(?=\W*$|\s*[.,;:!\n])", re.IGNORECASE)
_OPENING = re.compile(r"\W*(yes|no)(?=\W*$|\s*[.,;:!\n])", re.IGNORECASE)
# Phrases in which the word answers nothing: "I have no idea", "not a yes".
_NO_ANSWER = re.compile(
    r"\bno\s+(?:doubt|idea|clue|way|question|information|image|picture)\b|\bnot\s+(?:an?\s+)?(?:yes|no)\b",
    re.IGNORECASE,
)


def parse_yes_no(text: str) -> YesNo | None:
    """Return the answer when only one of the two words stands in the response.

    With both, the word that opens the response counts if punctuation sets it off and the other word is nowhere set
    off: "Yes, there is no leash" is yes; "No, wait, yes." and "yes or no" are None. So are "Not sure",
    "I have no idea" and "There isn't one": the benchmarks ask for the word, and a negation alone may deny anything.

    Source: ours. VLMEvalKit's rule for MME, without its judge model. The POPE script reads everything without
    "no" or "not" as yes, empty text included; the MME script looks for "no" within the first four letters, so
    "Know" and "Not sure" are no there.
    """
    text = _NO_ANSWER.sub(" ", text)
    words = _kinds(_WORD, text)
    if len(words) == 1:
        return words.pop()
    set_off = _kinds(_SET_OFF, text)
    if len(set_off) == 1 and _OPENING.match(text):
        return set_off.pop()
    return None


def _kinds(pattern: re.Pattern[str], text: str) -> set[YesNo]:
    return {"yes" if found.lower() == "yes" else "no" for found in pattern.findall(text)}


# A capital A that opens a sentence is an article, unless one of these words follows it.
_ARTICLE = r"(?:^|[.!?:\n\"“]\s*)A(?=\s+(?!(?:is|and|or|because)\b)\w)"
# Nothing that would make the letter part of a word, a name, or a denial.
_BEFORE = r"(?<![\w'’.-])(?<!not )(?<!Not )"
_AFTER = r"(?![\w'’-])"
_ANSWER_IS = r"(?i:\banswer\b[\s*_]*(?:is|:|>)(?:\s+(?:the\s+)?(?:option|choice)\b)?)[\s:*_(\[\"'`]*"


def parse_option(text: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that the response chooses, or None where it is not plain.

    The first rule that finds anything decides; when it finds two options the answer is None:
    the whole response is an option's text; it is a letter ("b", "(B)."); "answer is B"; it opens with "B." or "B)";
    capital letters standing alone outside the options' texts; options' texts as whole words, a text inside a longer
    one not counted. A letter outweighs a text: "B. cat" is B whatever B says.

    Args:
        text: The response.
        options: Text of each option by its capital letter.
    Source: after VLMEvalKit, can_infer, with four faults left out: an option is drawn at random when the judge
        fails; SEEDBench there takes the first character, so "Dog" is D; the article of "A dog" and the C of "Vitamin
        C" are options; "hot dog" is two options where "dog" is another.
    """
    if not options:
        return None
    rules = (_whole_text, _whole_letter, _answer_is, _opening_letter, _lone_letters, _mentioned_texts)
    for rule in rules:
        if found := rule(text, options):
            return found.pop() if len(found) == 1 else None
    return None


def _whole_text(text: str, options: Mapping[str, str]) -> set[str]:
    words = _words(text)
    return {letter for letter, option in options.items() if _is_text(option) and _words(option) == words}


def _whole_letter(text: str, options: Mapping[str, str]) -> set[str]:
    return {_words(text).upper()} & set(options)


def _answer_is(text: str, options: Mapping[str, str]) -> set[str]:
    return set(re.findall(_ANSWER_IS + _letter(options) + _AFTER, text))


def _opening_letter(text: str, options: Mapping[str, str]) -> set[str]:
    found = re.match(rf"[\s*(\[]*{_letter(options)}[\s*]*[.):,\]](?=\W|$)", text)
    return {found.group(1)} if found else set()


def _lone_letters(text: str, options: Mapping[str, str]) -> set[str]:
    text = re.sub(_ARTICLE, " ", text)
    for option in _longest_first(options):
        text = _mention(option).sub(" ", text)
    return set(re.findall(_BEFORE + _letter(options) + _AFTER, text)) - {"I"}


def _mentioned_texts(text: str, options: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for option in _longest_first(options):
        if _mention(option).search(text):
            found |= {letter for letter, other in options.items() if _words(other) == _words(option)}
            text = _mention(option).sub(" ", text)
    return found


def _words(text: str) -> str:
    """Lower case, with single spaces, without punctuation at the ends; a sign or a unit stays."""
    return re.sub(r"^[^\w+−$-]+|[^\w°%]+$", "", " ".join(text.lower().split()))


def _is_text(option: str) -> bool:
    """Whether it can be told from an option's letter: neither empty nor a letter itself."""
    words = _words(option)
    return len(words) > 1 or words.isdigit()


def _letter(options: Mapping[str, str]) -> str:
    return "([" + "".join(options) + "])"


def _longest_first(options: Mapping[str, str]) -> list[str]:
    return sorted(filter(_is_text, options.values()), key=lambda option: (-len(option), option))


def _mention(option: str) -> re.Pattern[str]:
    """The text as whole words; the 5 of 0.5, of -5 and of 1,500 is none."""
    return re.compile(rf"(?<![\w+−.-])(?<!\d,){re.escape(_words(option))}(?!\w|[.,]\d)", re.IGNORECASE)
