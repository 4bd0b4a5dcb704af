"""What ``model.lora_rank`` means from the command line to the policy, its checkpoints and its memory."""

from pathlib import Path

import pytest

from orchestrator.cluster.memory_plan import model_shape
from orchestrator.cluster.specs import base_spec, policy_spec
from orchestrator.config import TrainConfig, load_config
from orchestrator.data.side_tables import table_fingerprint
from orchestrator.pipeline.derived import cold_start_config
from orchestrator.tasks.digits_model import build_digits_model
from workers.reference import ReferenceWorker

_LORA = ("--model.lora_rank", "8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("lora") / "model", seed=0)


def _load(*argv: str) -> TrainConfig:
    return load_config(["--algo", "stable_reinforce", *argv])[0]


def _own(model: Path, *argv: str) -> TrainConfig:
    return _load("--model.path", str(model), "--data.path", "rows.json", "--run.seed", "5", *argv)


def test_alpha_follows_the_rank_unless_it_is_given(model: Path) -> None:
    for flags, alpha, scale in ((_LORA, 16, 2.0), ((*_LORA, "--model.lora_alpha", "4"), 4, 0.5)):
        lora = policy_spec(_own(model, *flags), None).lora
        assert lora is not None
        assert (lora.rank, lora.alpha, lora.scale, lora.seed) == (8, alpha, scale, 5)
    assert policy_spec(_own(model), None).lora is None


def test_a_policy_in_four_bits_is_compared_with_a_reference_in_four_bits(model: Path) -> None:
    config = _own(model, *_LORA, "--model.quantize", "nf4")
    policy, reference = policy_spec(config, None).model, base_spec(config, str(model))
    assert policy == reference and reference.quantize == "nf4"
    assert base_spec(_own(model, *_LORA), str(model)).quantize is None
    # Its log-probs are others than those of the whole weights.
    made = [
        table_fingerprint(_own(model, *_LORA, "--model.dtype", "bfloat16", *quantize), "", str(model))
        for quantize in ((), ("--model.quantize", "nf4"))
    ]
    assert made[0] != made[1]
    with pytest.raises(ValueError, match="needs a GPU for every policy rank and every reference worker"):
        ReferenceWorker(spec=reference, num_threads=1)


def test_an_adapter_is_continued_on_the_base_and_weights_on_themselves(model: Path, tmp_path: Path) -> None:
    adapted = policy_spec(_own(model, *_LORA), str(tmp_path))
    assert adapted.lora is not None
    assert (adapted.model.path, adapted.source, adapted.lora.saved) == (str(model), str(model), str(tmp_path))
    whole = policy_spec(_own(model), str(model))
    assert (whole.model.path, whole.lora) == (str(model), None)


def test_a_cold_start_trains_the_weights_that_the_adapter_then_stands_on() -> None:
    cold = cold_start_config(_load(*_LORA, "--model.lora_alpha", "4")).model
    assert (cold.lora_rank, cold.lora_alpha, cold.quantize) == (None, None, None)


def test_memory_is_planned_for_the_adapter_alone(model: Path) -> None:
    whole, small, large = (model_shape(str(model), ("vision",), lora_rank=rank) for rank in (None, 2, 4))
    # Every adapter has rank times (inputs + outputs) numbers.
    assert 0 < 2 * small.num_trainable == large.num_trainable < whole.num_trainable
    assert large.num_params == whole.num_params + large.num_trainable
