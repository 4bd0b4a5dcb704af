"""One step's raw outcome, as metric rows and as rollout records for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from algorithms.maths.off_policy import Mismatch
from orchestrator.cluster.sync import SyncResult
from orchestrator.evaluation.held_out import prompt_text
from orchestrator.evaluation.verdict import parse_verdict
from orchestrator.rewards.reward import Reward, reward_metrics
from orchestrator.run.rollout_store import RolloutRow
from orchestrator.training.experience import Experience
from workers.objectives import UpdateStats
from workers.types import Completion, GenerationRequest, Prompt

_DIGEST_HEX = 12
_UPDATE_METRICS = tuple(
    f"policy/{figure}" for figure in ("loss", "grad_norm", "entropy", "preclip_frac", "clip_frac", "lr")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Everything one online step produced."""

    prompts: tuple[Prompt, ...]
    requests: tuple[GenerationRequest, ...]
    completions: tuple[Completion, ...]
    """In the order of ``requests``, as are the rewards."""
    rewards: tuple[Reward, ...]
    experience: Experience
    mismatch: Mismatch | None
    """None where no update was taken that could measure it."""
    updates: tuple[Sequence[UpdateStats], ...]
    """For each optimizer step that was taken the statistics of every rank."""
    sync: SyncResult
    skipped: tuple[Sequence[UpdateStats], ...] = ()
    """Likewise for those that were tried and not taken."""
    num_skipped_updates: int = 0
    """Those, and those for which there were no samples with a reward."""
    mismatch_strikes: int = 0
    num_engine_restarts: int = 0
    """Since the run or its last restart began."""


def online_metrics(record: StepRecord, times: Mapping[str, float], rss_gib: Mapping[str, float]) -> dict[str, float]:
    """The flat row of one online step; names as in docs/metrics.md.

    Args:
        times: ``time/<phase>_s`` of every phase and of the whole step, seconds.
        rss_gib: Resident memory by role, GiB.
    """
    lengths = [len(c.completion_ids) for c in record.completions]
    experience = record.experience
    mismatch = record.mismatch or Mismatch(float("nan"), float("nan"), 0)
    return {
        **reward_metrics(record.rewards),
        "adv/filtered_pos_frac": experience.filtered.filtered_pos_frac,
        "adv/filtered_neg_frac": experience.filtered.filtered_neg_frac,
        **update_metrics(record.updates or record.skipped),
        "kl/ref": experience.kl_mean,
        "mismatch/logprob_abs_mean": mismatch.abs_mean,
        "mismatch/logprob_abs_max": mismatch.abs_max,
        "mismatch/nonfinite_tokens": float(mismatch.num_nonfinite),
        "sync/seconds": record.sync.seconds,
        "sync/verified": 1.0,
        "sync/probe_gap": record.sync.probe_gap,
        "sync/faults": float(len(record.sync.faults)),
        # 48 bits fit a float exactly: two runs with equal weights show equal numbers.
        "sync/weights_digest48": float(int(record.sync.digest[:_DIGEST_HEX], 16)),
        "guard/skipped_updates": float(record.num_skipped_updates),
        "guard/mismatch_strikes": float(record.mismatch_strikes),
        "faults/engine_restarts": float(record.num_engine_restarts),
        **times,
        "length/mean": float(np.mean(lengths)),
        "length/truncated_frac": float(np.mean([c.finish_reason == "length" for c in record.completions])),
        "throughput/rollout_tokens_per_s": sum(lengths) / times["time/rollout_s"],
        **{f"memory/rss_gib/{role}": gib for role, gib in rss_gib.items()},
    }


def update_metrics(updates: Sequence[Sequence[UpdateStats]]) -> dict[str, float]:
    """Means over optimizer steps, NaN without any; within one, rank sums over rank token counts."""
    rows: list[dict[str, float]] = []
    for ranks in updates:
        tokens = max(1, sum(r.num_tokens for r in ranks))
        rows.append(
            {
                "policy/loss": sum(r.loss for r in ranks),
                "policy/grad_norm": ranks[0].grad_norm,
                "policy/entropy": sum(r.entropy_sum for r in ranks) / tokens,
                "policy/preclip_frac": sum(r.preclip_hits for r in ranks) / tokens,
                "policy/clip_frac": sum(r.clip_hits for r in ranks) / tokens,
                "policy/lr": ranks[0].lr,
            }
        )
    return {name: _mean([row[name] for row in rows]) for name in _UPDATE_METRICS}


def rollout_rows(record: StepRecord, texts: Mapping[tuple[str, int], str]) -> list[RolloutRow]:
    """One record per rollout, with its texts, ids, rewards and seed.

    Args:
        texts: What each completion says, by uid and sample index.
    """
    prompts = {p.uid: p for p in record.prompts}
    rows = []
    for request, completion, reward in zip(record.requests, record.completions, record.rewards, strict=True):
        prompt = prompts[request.uid]
        text = texts[request.uid, request.sample_index]
        rows.append(
            RolloutRow(
                uid=request.uid,
                sample_index=request.sample_index,
                prompt_text=prompt_text(prompt),
                media=tuple(m.sha256 for m in prompt.media),
                media_paths=tuple(m.path for m in prompt.media),
                completion_text=text,
                completion_ids=completion.completion_ids,
                rollout_logprobs=completion.rollout_logprobs,
                reward=reward.value,
                reward_status=reward.status,
                parts=reward.parts,
                label=prompt.label,
                verdict=parse_verdict(text),
                finish_reason=completion.finish_reason,
                seed=request.seed,
                policy_version=completion.policy_version,
            )
        )
    return rows


def _mean(values: Sequence[float | None]) -> float:
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present else float("nan")
