"""Rewards for how a response is built, whatever it says."""

from remote_rm.parts import format_score


def format_(completion: str) -> float:
    """1 for ``<think>…</think>`` and then ``<answer>…</answer>``, none empty, and nothing else; else 0."""
    return format_score(completion)


def length(length: int, *, most: int) -> float:
    """1 for nothing, falling evenly to 0 at ``most`` tokens and staying there."""
    if most < 1:
        raise ValueError(f"most = {most} should be at least 1")
    return max(0.0, 1.0 - length / most)


def overlong(length: int, *, longest: int, buffer: int) -> float:
    """0 up to ``longest`` − ``buffer`` tokens, falling evenly to −1 at ``longest``, and −1 beyond.

    Source: Yu et al. 2025, DAPO, eq. 13, https://arxiv.org/abs/2503.14476
    """
    if not 0 < buffer < longest:
        raise ValueError(f"buffer = {buffer} should be from 1 to below longest = {longest}")
    over = length - (longest - buffer)
    return -min(max(over, 0) / buffer, 1.0)
