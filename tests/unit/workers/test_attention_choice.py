"""From the command line's word to a rank's update: another attention shares prompts too, and learns the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.records import Sequence
from algorithms.sft import CrossEntropy
from orchestrator.cluster.specs import model_spec
from orchestrator.config import load_config
from tests.tiny_models import write_qwen2_5_vl
from tests.tiny_prompts import demonstrations, picture_prompts, respond
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.models.attention_kernels import PlainKernel
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec, PolicyWorker

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of every forward of the kernel behind ``eager``."""
    seen: list[int] = []
    forward: Any = PlainKernel.forward

    def counted(self: PlainKernel, q: torch.Tensor, *rest: Any) -> Any:
        seen.append(len(q))
        return forward(self, q, *rest)

    monkeypatch.setattr(PlainKernel, "forward", counted)
    return seen


def test_eager_learns_from_shared_prompts_what_sdpa_learns(calls: list[int], tmp_path: Path) -> None:
    folder = write_qwen2_5_vl(tmp_path / "model")
    encoder = PromptEncoder(folder)
    prompts = picture_prompts(tmp_path, {"one": 1, "none": 0})
    sequences = [respond(encoder, p, np.array([9, 8, 7 + k]), sample_index=k) for p in prompts for k in range(3)]
    told = {attention: _learned(folder, sequences, attention) for attention in ("sdpa", "eager")}
    shared = sum(p.prompt_len for p in sequences[::3]) + 3 * len(sequences)
    assert shared in calls and max(calls) == shared, "a prompt is in the row once"
    for one, other in zip(told["eager"], told["sdpa"], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def _learned(folder: Path, sequences: list[Sequence], attention: str) -> list[Any]:
    """Log-probs before and after an update, and the norm of its gradient."""
    flags = ["--algo", "stable_reinforce", "--model.path", str(folder), "--model.dtype", "float32"]
    config, *_ = load_config([*flags, "--model.attention", attention])
    spec = PolicySpec(
        model=model_spec(config, str(folder)),
        source=str(folder),
        optimizer=OptimizerSpec(
            zero_stage=2,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            max_grad_norm=1.0,
            offload_optimizer=False,
            schedule=Schedule(peak_lr=1e-3, kind="constant", total_steps=4, warmup_frac=0.0, min_lr_frac=1.0),
        ),
        objective=CrossEntropy(),
        freeze=(),
        gradient_checkpointing=False,
    )
    worker = PolicyWorker(rank=0, world_size=1, spec=spec, num_threads=1)
    worker.setup("127.0.0.1", 0)
    before = list(worker.score([sequences]))
    norm = worker.update([demonstrations(sequences, aggregation="token-mean")]).grad_norm
    return [*before, norm, *worker.score([sequences])]
