"""The two texts a consistency judge reads: the end of the reasoning, and the answer as a sentence.

A judge never sees the question, the image or the candidate responses: it compares a conclusion with a choice.
"""

TAIL_LINES = 3
"""Lines of reasoning the judge reads; its conclusion is at the end."""


def reasoning_of(response: str) -> str:
    """What stands before ``<answer>``, without the think tags."""
    before, _, _ = response.partition("<answer>")
    return before.replace("<think>", "").replace("</think>", "").strip()


def tail(reasoning: str) -> str:
    """The last lines that are not blank."""
    lines = [line.strip() for line in reasoning.splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])


def answer_sentence(answer: str) -> str:
    """``1`` and ``2`` as a statement; anything else as it is."""
    answer = answer.strip()
    return f"Response {answer} is better." if answer in ("1", "2") else answer
