"""The engine by itself, one rank in this process: what it applies, and that a step which it skips leaves nothing."""

import math
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from workers.backends.deepspeed_engine import DeepSpeedEngine
from workers.backends.schedule import OptimizerSpec, Schedule

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_SCHEDULE = Schedule(peak_lr=1e-2, kind="linear", total_steps=10, warmup_frac=0.2, min_lr_frac=0.1)
Sums = Literal["auto", "float32"]
_STAGES = [(0, False), (1, False), (1, True), (2, False), (2, True), (3, False), (3, True)]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def _engine(stage: int, offload: bool, *, bf16: bool = False, sums: Sums = "auto") -> DeepSpeedEngine:
    spec = OptimizerSpec(
        zero_stage=stage,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        max_grad_norm=1.0,
        offload_optimizer=offload,
        grad_dtype=sums,
        schedule=_SCHEDULE,
    )
    model = _model().bfloat16() if bf16 else _model()
    return DeepSpeedEngine(model, spec, bf16=bf16, world_size=1)


def _batches(name: str) -> list[Tensor]:
    """Two micro-batches; in a step whose name begins with a digit, that one has no finite loss."""
    drawn = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(ord(name[-1])))
    if name[0].isdigit():
        drawn[int(name[0])] = torch.nan
    return list(drawn)


def _loss(output: Tensor) -> Tensor:
    return output.float().square().sum()


def _take(engine: DeepSpeedEngine, steps: Sequence[str]) -> list[float | None]:
    """Norms of the steps that were taken."""
    norms = []
    for name in steps:
        batches = _batches(name)
        dtype = next(iter(engine.module.parameters())).dtype
        finite = [
            engine.backward(_loss(engine.forward(batch.to(dtype))), last=index == len(batches) - 1)
            for index, batch in enumerate(batches)
        ]
        assert finite == [str(index) != name[0] for index in range(len(batches))]
        if all(finite):
            norms.append(engine.step())
        else:
            engine.discard()
    return norms


def _masters(engine: DeepSpeedEngine) -> Tensor:
    tensors = engine.state_tensors()
    return torch.cat([tensors[name].flatten() for name in sorted(tensors) if name.endswith(".master")])


def _by_hand(steps: Sequence[str]) -> tuple[nn.Module, list[float]]:
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    norms = []
    for number, name in enumerate(steps):
        optimizer.param_groups[0]["lr"] = _SCHEDULE.lr(number)
        optimizer.zero_grad()
        torch.stack([_loss(model(batch)) for batch in _batches(name)]).sum().backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
    return model, norms


@pytest.mark.parametrize(("stage", "offload"), _STAGES)
def test_a_skipped_step_leaves_nothing_behind(stage: int, offload: bool) -> None:
    """Neither in the weights, nor in the norm by which the next step is clipped, nor in the learning rate."""
    model, wanted = _by_hand("abc")
    for steps in (["a", "b", "c"], ["a", "0x", "b", "c"], ["1x", "a", "1x", "0y", "b", "c"]):
        engine = _engine(stage, offload)
        assert _take(engine, steps) == pytest.approx(wanted, rel=1e-5)
        assert engine.num_steps == 3
        with engine.gathered(list(engine.module.parameters())):
            for ours, theirs in zip(engine.module.parameters(), model.parameters(), strict=True):
                assert torch.allclose(ours.detach(), theirs, atol=1e-6)


_IN_BFLOAT16: list[tuple[int, bool, Sums]] = [*((*one, "auto") for one in _STAGES), (1, False, "float32")]


@pytest.mark.parametrize(("stage", "offload", "sums"), _IN_BFLOAT16)
def test_bfloat16_learns_alike_at_every_stage_after_a_skipped_step(stage: int, offload: bool, sums: Sums) -> None:
    engine, reference = _engine(stage, offload, bf16=True, sums=sums), _engine(2, False, bf16=True)
    start, unsharded = _masters(engine), _masters(reference)
    _take(engine, ["0x", "a", "1x", "b"])
    _take(reference, ["a", "b"])
    moved, wanted = (_masters(engine) - start).abs().sum(), (_masters(reference) - unsharded).abs().sum()
    assert float(moved) == pytest.approx(float(wanted), rel=1e-2)


@pytest.mark.parametrize(("stage", "offload", "sums"), [(2, False, "auto"), (3, True, "auto"), (1, False, "float32")])
def test_small_micro_batches_in_bfloat16_add_up(stage: int, offload: bool, sums: Sums) -> None:
    """Each is a 600th of the first: in bfloat16 the sum of gradients would not change."""
    norms = []
    (batch, _) = _batches("a")
    for shares in ([1.0], [1.0, *[1 / 600] * 60]):
        engine = _engine(stage, offload, bf16=True, sums=sums)
        for index, share in enumerate(shares):
            engine.backward(_loss(engine.forward(batch.bfloat16())) * share, last=index == len(shares) - 1)
        norms.append(engine.step())
    assert norms[1] == pytest.approx(1.1 * norms[0], rel=5e-3)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_sum_in_float32_is_not_rounded_on_its_way_between_ranks(stage: int) -> None:
    engine, model = _engine(stage, False, bf16=True, sums="float32"), _model().bfloat16()
    total = torch.zeros(sum(p.numel() for p in model.parameters()))
    for last, batch in enumerate(_batches("a")):
        model.zero_grad()
        _loss(model(batch.bfloat16())).backward()
        total += torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])
        engine.backward(_loss(engine.forward(batch.bfloat16())), last=bool(last))
    assert engine.step() == pytest.approx(float(total.norm()), rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_gradients_that_only_together_are_not_finite_are_not_applied(stage: int) -> None:
    engine = _engine(stage, False)
    before = _masters(engine)
    for index in range(2):
        assert engine.backward(engine.forward(torch.ones(3, 4)).sum() * 3e37, last=index == 1)
    assert engine.step() is None and engine.num_steps == 0
    assert torch.equal(_masters(engine), before)
    (norm,) = _take(engine, ["a"])
    assert norm is not None and math.isclose(norm, _by_hand("a")[1][0], rel_tol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("stage", "offload", "sums"), _IN_BFLOAT16)
def test_a_resumed_rank_goes_on_to_the_last_bit(stage: int, offload: bool, sums: Sums, bf16: bool) -> None:
    unbroken = _engine(stage, offload, bf16=bf16, sums=sums)
    _take(unbroken, "ab")
    saved = {name: tensor.clone() for name, tensor in unbroken.state_tensors().items()}
    with unbroken.gathered(list(unbroken.module.parameters())):
        weights = {name: tensor.clone() for name, tensor in unbroken.module.state_dict().items()}
    resumed = _engine(stage, offload, bf16=bf16, sums=sums)
    with resumed.gathered(list(resumed.module.parameters())):
        resumed.module.load_state_dict(weights)
    resumed.load_state_tensors(saved, num_steps=2)
    assert _take(resumed, "cd") == _take(unbroken, "cd")
    left, right = unbroken.state_tensors(), resumed.state_tensors()
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    assert {name.split(".")[1] for name in left} == {"master", "step", "exp_avg", "exp_avg_sq"}
