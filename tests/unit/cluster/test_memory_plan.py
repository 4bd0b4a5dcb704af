"""What a worker holds beside weights and activations, counted by hand for Qwen2.5-VL-7B."""

from pathlib import Path

import pytest

from orchestrator.cluster.memory_plan import MemoryQuestion, RoleMemory, of_policy, of_reference
from orchestrator.config import load_config
from tests.unit.cluster.described_models import write_qwen2_5_vl_config

_HIDDEN, _IDS, _GIB = 3584, 152_064, 1 << 30
_PIECE = (1 << 26) * 8
"""Scores and log-softmax of what is wide at a time."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_5_vl_config(tmp_path_factory.mktemp("described") / "7B")


def _asked(model: Path, *flags: str) -> MemoryQuestion:
    own = ("--algo", "grpo", "--model.path", str(model), "--data.path", "unread.jsonl", "--model.dtype", "bfloat16")
    sizes = ("--data.max_prompt_tokens", "1024", "--rollout.max_new_tokens", "1024", "--rollout.prompts_per_step", "8")
    batch = ("--rollout.samples_per_prompt", "8", "--policy.train_batch_size", "64")
    config, _ = load_config([*own, *sizes, *batch, "--policy.tokens_per_microbatch", "40960", *flags])
    return MemoryQuestion(config=config, gpu_memory_gib=80.0)


def _policy(model: Path, *flags: str) -> RoleMemory:
    return of_policy(_asked(model, *flags))


def test_a_head_that_learns_keeps_its_logits_until_the_backward_pass(model: Path) -> None:
    """20 samples of 1,024 tokens."""
    kept = 20_480 * _IDS * 2
    assert kept == pytest.approx(5.8 * _GIB, rel=1e-3)
    assert _policy(model).gpu["logits"] == kept + _PIECE
    # Twice as many would be 11.6 GiB: from 8 on they are computed again, piece by piece.
    assert _policy(model, "--policy.tokens_per_microbatch", "81920").gpu["logits"] == 8 * _GIB + _PIECE


@pytest.mark.parametrize("flags", [("--model.lora_rank", "8"), ("--model.freeze", "language")])
def test_of_a_frozen_head_a_row_a_token_is_kept(model: Path, flags: tuple[str, ...]) -> None:
    rows, of_one_call = 20_480 * _HIDDEN * 2, (1 << 27) * 2
    assert _policy(model, *flags).gpu["logits"] == rows + of_one_call + _PIECE
    assert _policy(model, *flags, "--policy.zero_stage", "3").gpu["logits"] == 20_480 * _IDS * 2 + _PIECE


def test_of_a_reference_only_a_piece_of_the_logits_is_there(model: Path) -> None:
    held = of_reference(_asked(model, "--algorithm.kl_coef", "0.1"))
    assert held.gpu["logits"] == (1 << 27) * 2 + _PIECE
    assert held.resident == held.gpu["weights"] + held.gpu["vision features"]


def test_features_are_counted_where_the_tower_is_frozen(model: Path) -> None:
    """10 KiB a token: 64 prompts of 1,024 tokens are 0.6 GiB, of 8,192 no more than the 2 that are kept."""
    assert "vision features" not in _policy(model).gpu
    few, whole = _policy(model, "--model.freeze", "vision"), _policy(model)
    assert few.gpu["vision features"] == 64 * 1024 * (10 << 10)
    assert few.resident - few.gpu["vision features"] - few.gpu["weights"] < whole.resident - whole.gpu["weights"]
    many = ("--data.max_prompt_tokens", "8192", "--model.freeze", "vision")
    assert _policy(model, *many).gpu["vision features"] == 2 * _GIB
