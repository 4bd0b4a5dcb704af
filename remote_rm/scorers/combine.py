"""R = 0.5 F + Acc (1 + 0.5 C), F and Acc in {0, 1}, C in {−1, 0, +1}. Source: R1-Reward, arXiv 2505.02835."""


def combine(format_score: float, accuracy: float, consistency: float | None) -> float:
    """The scalar reward, in [0, 2]. ``consistency`` may be None only where accuracy is 0 and it cannot matter."""
    if accuracy == 0.0:
        return 0.5 * format_score
    assert consistency is not None, "a right answer needs a consistency value"
    return 0.5 * format_score + accuracy * (1.0 + 0.5 * consistency)
