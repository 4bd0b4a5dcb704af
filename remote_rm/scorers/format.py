"""Format: exactly ``<think>…</think>`` then ``<answer>…</answer>``, and nothing else.

Stricter than the released pattern where that one pays for defects (repeated closing tags, empty blocks) and laxer
in one place: white space may stand between the blocks, where every chat model puts a line break.
"""

import re

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_PATTERN = re.compile(r"<think>(.*)</think>\s*<answer>(.*)</answer>", re.DOTALL)


def format_score(response: str) -> float:
    """1.0 for a well-formed response, else 0.0; outer white space does not count."""
    if any(response.count(tag) != 1 for tag in TAGS):
        return 0.0
    match = _PATTERN.fullmatch(response.strip())
    return 1.0 if match is not None and all(block.strip() for block in match.groups()) else 0.0
