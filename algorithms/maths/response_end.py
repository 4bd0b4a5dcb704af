"""Where a response ends by the rule of LLaVA-RLHF's release, for comparison: an engine stops by itself."""

from collections.abc import Sequence


def released_length(ids: Sequence[int], *, eos_id: int, mark_ids: Sequence[int] = ()) -> int:
    """Tokens that are kept: to the first end of turn, or, where there is one, to a question mark *instead*.

    The first occurrence of each mark is looked for in the whole response; of several marks the last of ``mark_ids``
    that occurs decides. So a response with a question mark loses its end of turn, and counts as cut, unless the mark
    stands behind it.

    Args:
        ids: A response, padding behind it included.
    Source: LLaVA-RLHF, rl_trainer.py:514-557
    """
    ids = list(ids)
    for mark in reversed(mark_ids):
        if mark in ids:
            return ids.index(mark) + 1
    return ids.index(eos_id) + 1 if eos_id in ids else len(ids)
