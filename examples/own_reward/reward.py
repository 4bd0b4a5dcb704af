"""Rewards of one's own for sums: the right answer, and naming both digits on the way."""

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def right(completion: str, label: str) -> float:
    """1 for the right sum."""
    return float(_answer(completion) == label)


def consistent(completion: str) -> float:
    """1 where the answer is the sum of the digits that were named: whether they are those in the picture or not."""
    named = [_WORDS.index(word) for word in completion.split() if word in _WORDS]
    return float(len(named) == 2 and _answer(completion) == str(sum(named)))


def _answer(completion: str) -> str:
    return completion.partition("<answer>")[2].partition("</answer>")[0].strip()
