"""One step's raw outcome, as metric rows and as rollout records for people."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from algorithms.maths.off_policy import Mismatch
from algorithms.tokens import MISMATCH
from orchestrator.cluster.sync import SyncResult
from orchestrator.evaluation.answers import parse_verdict
from orchestrator.evaluation.held_out import prompt_text
from orchestrator.rewards.reward import Reward, reward_metrics
from orchestrator.run.rollout_store import RolloutRow
from orchestrator.training.updates import update_figures
from workers.types import Completion, GenerationRequest, Prompt, RankUpdate

_DIGEST_HEX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Everything one online step produced."""

    prompts: tuple[Prompt, ...]
    requests: tuple[GenerationRequest, ...]
    completions: tuple[Completion, ...]
    """In the order of ``requests``, as are the rewards."""
    rewards: tuple[Reward, ...]
    figures: Mapping[str, float]
    """What the algorithm says of it."""
    mismatch: Mismatch | None
    """None where no update was taken that could measure it."""
    updates: tuple[Sequence[RankUpdate], ...]
    """For each optimizer step that was taken what every rank met."""
    sync: SyncResult
    skipped: tuple[Sequence[RankUpdate], ...] = ()
    """Likewise for those that were tried and not taken."""
    num_skipped_updates: int = 0
    """Those, and those for which there were no samples with a reward."""
    mismatch_strikes: int = 0
    num_engine_restarts: int = 0
    """Since the run or its last restart began."""


def online_metrics(record: StepRecord, times: Mapping[str, float]) -> dict[str, float]:
    """The flat row of one online step; names as in docs/metrics.md.

    Args:
        times: ``time/<phase>_s`` of every phase and of the whole step, seconds.
    """
    lengths = [len(c.completion_ids) for c in record.completions]
    mismatch = record.mismatch or Mismatch(float("nan"), float("nan"), 0)
    return {
        **reward_metrics(record.rewards),
        **record.figures,
        **update_figures(record.updates or record.skipped),
        **{figure.name: float(value) for figure, value in zip(MISMATCH, astuple(mismatch), strict=True)},
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
    }


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
