"""One step's raw outcome, as metric rows and as rollout records for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from statistics import fmean, pstdev

import numpy as np

from algorithms.figures import Figure, Tallies, values
from algorithms.maths.logprobs import Mismatch
from algorithms.tokens import MISMATCH
from orchestrator.cluster.sync import SyncResult
from orchestrator.evaluation.held_out import prompt_text
from orchestrator.evaluation.right import is_right, readable_answer
from orchestrator.rewards.reward import Reward, reward_metrics
from orchestrator.run.ahead import Span
from orchestrator.run.rollout_store import RolloutRow
from orchestrator.training.updates import Update, update_figures
from workers.types import Completions, GenerationRequest, Prompt

_DIGEST_HEX = 12
FIGURES = (
    *MISMATCH,
    Figure("sync/seconds", "weights to every engine, with verification"),
    Figure("sync/verified", "1: a sync that is not verified ends the run"),
    Figure("sync/probe_gap", "largest log-prob gap of the probe prompts, nats"),
    Figure("sync/faults", "engines that needed a second transfer or a restart"),
    Figure("sync/weights_digest48", "first 48 bits of the weights' digest: equal numbers, equal weights"),
    Figure(
        "guard/mismatch_strikes",
        "steps in a row whose mismatch was beyond `guard.max_mismatch`: 1 warned, 2 corrected, 3 re-synced",
    ),
    Figure("faults/engine_restarts", "rollout engines replaced since the run, or its last restart, began"),
    Figure("length/mean", "completion tokens", "Completion length, tokens"),
    Figure("length/truncated_frac", "share of completions cut at the limit", "Share of cut completions", "cut"),
    Figure(
        "throughput/rollout_tokens_per_s",
        "sampled tokens a second, all engines together",
        "Rollout tokens a second",
        "rate",
    ),
)
"""Of every online step, beyond its rewards, its updates and what its algorithm says."""
ANSWERS = (
    Figure("rollout/reward_spread", "standard deviation of the rewards of the step's scored rollouts", "Reward spread"),
    Figure(
        "rollout/right_frac",
        "share of the step's rollouts of labelled prompts whose readable answer is the label",
        "Answers of the step",
        "right",
    ),
    Figure(
        "rollout/top_answer_frac",
        "share of the step's readable answers that are the most frequent one: at 1 the policy says the same to all",
        "Answers of the step",
        "the most frequent",
    ),
    Figure(
        "rollout/top_label_frac",
        "the same of the labels of the step's rollouts",
        "Answers of the step",
        "the most frequent label",
    ),
)
"""Of what a step's rollouts say and earn, by which a collapse is known."""
BY_SOURCE = Figure(
    "source/*",
    "mean reward of the scored rollouts of one data source, by its name: `source/<name>/reward`; missing where it "
    "has none in the step",
    "Reward by source",
)
"""Of a run with several sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Answers and what they earned, all in one order."""

    requests: tuple[GenerationRequest, ...]
    completions: Completions
    """Each behind its prompt."""
    rewards: tuple[Reward, ...]
    texts: Mapping[tuple[str, int], str]
    """What each completion says, by uid and sample index."""
    tallies: Tallies = field(default_factory=dict)
    """Of whoever looked at them, beside the rewards."""
    ref_logprobs: tuple[np.ndarray, ...] = ()
    """float32 ``[L]`` of each, where the reference was asked while others were sampled; empty where it was not."""
    spans: tuple[tuple[Span, ...], ...] = ()
    """Of each, where weights of several versions may have sampled it; empty where they were all of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What the engines did in a step."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one online step has figures of."""

    sampled: Sampled
    figures: Mapping[str, float]
    """What the algorithm says of it."""
    mismatch: Mismatch | None
    """None where no update was taken that could measure it."""
    updates: tuple[Update, ...]
    """Those that were tried."""
    num_planned_updates: int
    """Those, and those for which there were no samples with a reward."""
    sync: SyncResult | None
    """None where it was not come to."""
    rate: Rate
    mismatch_strikes: int = 0
    num_engine_restarts: int = 0
    """Since the run or its last restart began."""
    learns_stale: bool = False
    """Whether earlier weights may have sampled it."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """By uid of the prompt the data source that it is from, where there are several."""


def online_metrics(record: StepRecord) -> dict[str, float]:
    """The figures of one online step, but for its times and the memory it takes."""
    lengths, rate = record.sampled.completions.lengths.tolist(), record.rate
    return {
        **reward_metrics(record.sampled.rewards),
        **values(record.sampled.tallies),
        **_by_source(record.sampled, record.sources),
        **record.figures,
        **update_figures(record.updates, planned=record.num_planned_updates),
        **_mismatch(record),
        **({} if record.sync is None else _of_sync(record.sync)),
        "guard/mismatch_strikes": float(record.mismatch_strikes),
        "faults/engine_restarts": float(record.num_engine_restarts),
        "length/mean": float(np.mean(lengths)),
        "length/truncated_frac": float(np.mean([r == "length" for r in record.sampled.completions.finish_reasons])),
        **({"throughput/rollout_tokens_per_s": rate.tokens / rate.seconds} if rate.tokens else {}),
    }


def _of_sync(sync: SyncResult) -> dict[str, float]:
    return {
        "sync/seconds": sync.seconds,
        "sync/verified": 1.0,
        "sync/probe_gap": sync.probe_gap,
        "sync/faults": float(len(sync.faults)),
        # 48 bits fit a float exactly: two runs with equal weights show equal numbers.
        "sync/weights_digest48": float(int(sync.digest[:_DIGEST_HEX], 16)),
    }


def _mismatch(record: StepRecord) -> dict[str, float]:
    """Nothing where no token was sampled by the weights that learn: drift is told instead."""
    if record.mismatch is None and record.learns_stale:
        return {}
    found = astuple(record.mismatch or Mismatch(float("nan"), float("nan"), 0))
    return {figure.name: float(value) for figure, value in zip(MISMATCH, found, strict=True)}


def _by_source(sampled: Sampled, sources: Mapping[str, str]) -> dict[str, float]:
    earned: dict[str, list[float]] = {}
    for uid, reward in zip(sampled.completions.uids, sampled.rewards, strict=True):
        if reward.value is not None and uid in sources:
            earned.setdefault(sources[uid], []).append(reward.value)
    return {f"source/{name}/reward": float(np.mean(values)) for name, values in sorted(earned.items())}


def rollout_rows(prompts: Mapping[str, Prompt], sampled: Sampled, *, judging: bool) -> list[RolloutRow]:
    """One record per rollout, with its texts, ids, rewards and seed.

    Args:
        prompts: By uid.
        judging: Whether the run's prompts ask for verdicts.
    """
    rows, asked = [], {uid: prompt_text(prompt) for uid, prompt in prompts.items()}
    of_each = zip(sampled.requests, sampled.completions, sampled.rewards, strict=True)
    for place, (request, completion, reward) in enumerate(of_each):
        prompt = prompts[request.uid]
        text = sampled.texts[request.uid, request.sample_index]
        answer, label = readable_answer(text, judging=judging), prompt.label
        rows.append(
            RolloutRow(
                uid=request.uid,
                sample_index=request.sample_index,
                prompt_text=asked[request.uid],
                media=tuple(m.sha256 for m in prompt.media),
                media_paths=tuple(m.path for m in prompt.media),
                completion_text=text,
                completion_ids=completion.completion_ids,
                rollout_logprobs=completion.rollout_logprobs,
                reward=reward.value,
                reward_status=reward.status,
                parts=reward.parts,
                label=label,
                verdict=answer,
                answer_right=None if label is None else is_right(answer, label, judging=judging),
                finish_reason=completion.finish_reason,
                seed=request.seed,
                policy_version=completion.policy_version,
                oldest_version=sampled.spans[place][0][1] if sampled.spans else completion.policy_version,
                source=prompt.source,
            )
        )
    return rows


def answer_figures(rows: Sequence[RolloutRow]) -> dict[str, float]:
    """``ANSWERS`` of a step, those that there are; and which of its prompts teach nothing."""
    found: dict[str, float] = {}
    rewards = [row.reward for row in rows if row.reward is not None]
    if rewards:
        found["rollout/reward_spread"] = pstdev(rewards)
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row.reward is not None:
            groups.setdefault(row.uid, []).append(row.reward)
    several = [len(set(earned)) for earned in groups.values() if len(earned) > 1]
    if several:
        found["rollout/equal_frac"] = several.count(1) / len(several)
    right = [row.answer_right for row in rows if row.answer_right is not None]
    if right:
        found["rollout/right_frac"] = fmean(right)
    said = {"answer": [row.verdict for row in rows], "label": [row.label for row in rows]}
    for name, words in said.items():
        there = [word for word in words if word is not None]
        if there:
            found[f"rollout/top_{name}_frac"] = Counter(there).most_common(1)[0][1] / len(there)
    return found
