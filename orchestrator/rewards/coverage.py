"""What stops a run whose rewards say too little to learn from."""

from collections.abc import Sequence

from orchestrator.errors import GuardStop
from orchestrator.rewards.reward import Reward

_TELLING = 2


def check_coverage(rewards: Sequence[Reward], *, minimum: float) -> None:
    """Stop when too few rollouts could be scored to learn from, or none.

    Raises:
        GuardStop: with the coverage, the bound and one service's reason.
    """
    failed = [r for r in rewards if r.value is None]
    coverage = 1.0 - len(failed) / len(rewards)
    if coverage < minimum or len(failed) == len(rewards):
        told = f"is below reward.min_coverage = {minimum:g}" if coverage < minimum else "leaves nothing to learn from"
        raise GuardStop(
            f"reward coverage {coverage:.3f} {told}: "
            f"{len(failed)} of {len(rewards)} rollouts were not scored, first reason: {failed[0].detail}"
        )


def check_unknown(rewards: Sequence[Reward], *, most: float | None) -> None:
    """Stop when the judge's answers cannot be read: whoever is right is then paid without anybody having looked.

    Verdicts from the cache say nothing of how the judge is now, nor does a single answer.

    Args:
        most: Largest accepted share of the samples the judge was asked about; None accepts all.
    Raises:
        GuardStop: with the share, the bound and one answer.
    """
    unknown = [r for r in rewards if r.status == "unknown"]
    asked = len(unknown) + sum(r.status == "scored" and r.consistency is not None for r in rewards)
    if most is None or asked < _TELLING or len(unknown) <= most * asked:
        return
    raise GuardStop(
        f"the judge gave no verdict on {len(unknown)} of the {asked} samples it was asked about, a share of "
        f"{len(unknown) / asked:.3f} above reward.max_unknown = {most:g}; for example: {unknown[0].detail}"
    )
