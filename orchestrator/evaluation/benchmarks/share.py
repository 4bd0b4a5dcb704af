"""The one division of the benchmarks. Invariant: a share lies in [0, 1] and exists for an empty whole too."""


def share(part: int, whole: int) -> float:
    """Return part / whole, and 0 of an empty whole.

    Every result holds the count its shares are taken of, so a 0 that means "of nothing" can be told from a 0 of many.

    Raises:
        ValueError: part is negative or larger than whole.
    """
    if not 0 <= part <= whole:
        raise ValueError(f"a share needs 0 <= part <= whole, got part {part}, whole {whole}")
    return part / whole if whole else 0.0
