"""One rank or two, ZeRO-2 or ZeRO-3: the same objective and the same weights, also after a step that was not taken."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from algorithms.figures import added
from algorithms.records import Sequence, TokenSample
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.roles import ROLES
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.pools import make_pool, policy_spec
from tests.tiny_prompts import demonstrations
from workers.models import policy_module
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicyWorker
from workers.types import RankUpdate

pytestmark = pytest.mark.integration
_STEPS, _BATCH = 5, 16


class PiecewisePolicy(PolicyWorker):
    """Has its logits in pieces of some twenty tokens, so that ranks need different numbers of them."""

    def setup(self, master_address: str, master_port: int) -> int:
        policy_module.BYTES_KEPT = {"cpu": 20 * 37 * 4}
        return super().setup(master_address, master_port)


def _batches(model: Path, digits: DigitsPaths) -> list[list[TokenSample]]:
    encoder = PromptEncoder(model)
    file = digits.train
    source = SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=None, video_frames=1)
    dataset = read_prompts(source)
    sequences = []
    for index in range(_STEPS * _BATCH):
        prompt = dataset.prompts[index // 2]  # two responses share it
        encoded = encoder.encode(prompt)
        target = encoder.encode_target(prompt.target or "")
        # Uneven lengths: the ranks must not agree by accident.
        target = target[: len(target) - len(sequences) % 5]
        # Some samples without an image, short enough to fill a micro-batch of their own.
        silent = index % 8 >= 4
        prompt_ids = [i for i in encoded.prompt_ids if not (silent and i in encoder.vision_token_ids)]
        ids = np.asarray((*prompt_ids, *target))
        sequences.append(
            Sequence(
                uid=prompt.uid,
                sample_index=index % 2,
                input_ids=ids,
                prompt_len=len(prompt_ids),
                media=() if silent else prompt.media,
            )
        )
    parts = [sequences[i * _BATCH : (i + 1) * _BATCH] for i in range(_STEPS)]
    parts.append(sequences[:1])  # not enough for two ranks
    return [demonstrations(part, aggregation="seq-mean-token-mean") for part in parts]


def _train(
    model: Path,
    batches: list[list[TokenSample]],
    out: Path,
    *,
    num_ranks: int,
    zero_stage: int,
    freeze: tuple[str, ...],
):
    """First loss, the exported weights after all steps and what they say of one sample."""
    pool = make_pool(num_ranks=num_ranks)
    try:
        pool.role("policy").start(replace(policy_spec(model, zero_stage=zero_stage), freeze=freeze))
        losses = []
        for samples in batches:
            if num_ranks == 2 and losses:
                _refuse_a_broken_batch(pool, samples)
            stats = _update(pool, samples)
            losses.append(added(rank.figures for rank in stats)["policy/loss"].value)
        sequence = batches[-1][0].sequence
        (scored,) = pool.role("policy").each("score", [sequence], deadline_s=60.0)
        assert len(pool.role("policy").each("greedy_hits", [sequence], deadline_s=60.0)) == 1
        pool.role("policy").shared("save", str(out), deadline_s=60.0)
    finally:
        pool.close()
    return losses[0], load_file(out / "policy" / "model.safetensors"), scored


def _update(pool: WorkerPool, samples: list[TokenSample]) -> list[RankUpdate]:
    plan = pool.microbatches([s.sequence for s in samples], num_ranks=len(pool.role("policy").actors))
    per_rank = [[[samples[i] for i in batch] for batch in batches] for batches in plan]
    return pool.role("policy").update(per_rank, deadline_s=120.0)


def _refuse_a_broken_batch(pool: WorkerPool, samples: list[TokenSample]) -> None:
    """One sample's loss is infinite: it is named, no rank steps, and nothing of its gradient stays behind."""
    *others, last = samples
    broken = replace(last, loss_weight=np.where(last.loss_weight > 0, np.inf, 0.0))
    stats = _update(pool, [*others, broken])
    assert [uid for rank in stats for uid in rank.nonfinite] == [broken.sequence.uid]
    assert [math.isnan(rank.grad_norm) for rank in stats] == [True, True]


@pytest.mark.parametrize(
    ("others", "freeze"),
    [
        ([(2, 3)], ()),
        # Where the ranks lack different numbers of features.
        pytest.param([(2, 3)], ("vision",), marks=pytest.mark.soak),
        pytest.param([(2, 2), (1, 3)], (), marks=pytest.mark.soak),
    ],
)
def test_ranks_and_zero_stages_agree(
    cluster: None,
    random_model: Path,
    digits: DigitsPaths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: list[tuple[int, int]],
    freeze: tuple[str, ...],
) -> None:
    piecewise = replace(ROLES["policy"], actor=f"{__name__}:{PiecewisePolicy.__name__}")
    monkeypatch.setitem(ROLES, "policy", piecewise)
    batches = _batches(random_model, digits)
    settings = [(1, 2), *others]
    runs = {
        (n, stage): _train(
            random_model, batches, tmp_path / f"{n}-{stage}", num_ranks=n, zero_stage=stage, freeze=freeze
        )
        for n, stage in settings
    }
    start = load_file(random_model / "model.safetensors")
    first_loss, weights, scored = runs[1, 2]
    assert any(float((weights[name] - start[name]).abs().max()) > 1e-3 for name in start if name in weights)
    for loss, other, others_scored in runs.values():
        assert others_scored == pytest.approx(scored, abs=1e-3)
        assert loss == pytest.approx(first_loss, rel=1e-5)
        assert other.keys() == weights.keys()
        gaps = {name: float((other[name] - weights[name]).abs().max()) for name in weights}
        assert max(gaps.values()) < 1e-4, max(gaps, key=lambda name: gaps[name])
