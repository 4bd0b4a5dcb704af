"""Dynamic sampling: prompts whose samples all earn the same teach nothing, and the next prompts take their places.

    take ──► sample and reward ──► groups that differ: kept
      ▲                        └── groups of equal rewards: dropped, as many prompts are taken again, so many times

What is taken is a function of the cursor and of the rewards alone, so a run that is killed and resumed refills alike.
Source: Yu et al. 2025, DAPO, section 3.2, https://arxiv.org/abs/2503.14476
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from algorithms.figures import Figure, added
from orchestrator.cluster.feed import with_their_prompts
from orchestrator.rewards.reward import Reward
from orchestrator.run.cursor import PromptCursor, PromptPick
from orchestrator.training.online_metrics import Sampled
from workers.types import Prompt, joined

FIGURES = (
    Figure("rollout/refills", "times that prompts were sampled in place of those whose samples all earned the same"),
    Figure(
        "rollout/equal_frac",
        "share of the step's sampled prompts whose samples all earned the same: they teach nothing; of prompts with "
        "several samples",
        "Prompts whose samples earn the same",
        "equal",
    ),
)
"""Of steps that refill; the second of any with several samples a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a step learns from."""

    prompts: Mapping[str, Prompt]
    """By uid, those that were kept."""
    sampled: Sampled
    """Of these."""
    rewards: Sequence[Reward]
    """Of all that were sampled, dropped prompts among them."""
    cursor: PromptCursor
    """Behind all that were taken."""
    figures: Mapping[str, float]


def drawn(
    cursor: PromptCursor,
    count: int,
    *,
    max_refills: int,
    named: Callable[[PromptPick], Prompt],
    sample: Callable[[Mapping[str, Prompt]], Sampled],
) -> Drawn:
    """Sample ``count`` prompts, and others in place of those that teach nothing.

    Where there are still too few after the last refill, the latest that teach nothing fill the step, so that it has
    its size.

    Args:
        named: The prompt of a pick; ``repeat`` counts over the whole step.
        sample: Answers and rewards of prompts by uid.
    """
    kept: list[str] = []
    equal: list[str] = []
    prompts: dict[str, Prompt] = {}
    rounds: list[Sampled] = []
    times: dict[int, int] = {}
    while len(kept) < count and len(rounds) <= max_refills:
        picks, cursor = cursor.take(count - len(kept))
        asked = {p.uid: p for p in (named(_counted(pick, times)) for pick in picks)}
        prompts |= asked
        rounds.append(sample(asked))
        found = _equal(rounds[-1]) if max_refills else set[str]()
        kept += [uid for uid in asked if uid not in found]
        equal += [uid for uid in asked if uid in found]
    taken = [*kept, *equal[len(kept) - count :]] if len(kept) < count else kept
    figures = {"rollout/refills": float(len(rounds) - 1), "rollout/equal_frac": len(equal) / len(prompts)}
    chosen_uids = set(taken)
    chosen = {uid: prompt for uid, prompt in prompts.items() if uid in chosen_uids}
    return Drawn(
        prompts=chosen,
        sampled=_joined(rounds, chosen),
        rewards=[reward for one in rounds for reward in one.rewards],
        cursor=cursor,
        figures=figures if max_refills else {},
    )


def teaches_nothing(rewards: Sequence[Reward]) -> bool:
    """Whether no two samples of a prompt have rewards that differ: by equality, whatever rounding may say."""
    return len({reward.value for reward in rewards if reward.value is not None}) < 2


def _counted(pick: PromptPick, times: dict[int, int]) -> PromptPick:
    times[pick.index] = times.get(pick.index, -1) + 1
    return PromptPick(pick.index, times[pick.index])


def _equal(sampled: Sampled) -> set[str]:
    groups: dict[str, list[Reward]] = {}
    for uid, reward in zip(sampled.completions.uids, sampled.rewards, strict=True):
        groups.setdefault(uid, []).append(reward)
    return {uid for uid, rewards in groups.items() if teaches_nothing(rewards)}


def _joined(rounds: Sequence[Sampled], chosen: Mapping[str, Prompt]) -> Sampled:
    if len(rounds) == 1 and len(chosen) == len(set(rounds[0].completions.uids)):
        return rounds[0]
    rows = [row for one in rounds for row in zip(one.requests, one.rewards, strict=True) if row[0].uid in chosen]
    requests = tuple(request for request, _ in rows)
    completions = joined([one.completions for one in rounds], ((r.uid, r.sample_index) for r in requests))
    return Sampled(
        requests=requests,
        completions=with_their_prompts(requests, completions),
        rewards=tuple(reward for _, reward in rows),
        texts={key: text for one in rounds for key, text in one.texts.items()},
        tallies=added(one.tallies for one in rounds),
    )
