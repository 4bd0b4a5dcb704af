"""What a run without data of its own learns from: files as a user would have them, and a model that can read them."""

import json
from pathlib import Path

import pytest

from algorithms.critique_rm import CritiqueRmSection
from algorithms.mm_dpo import MmDpoSection
from orchestrator.config import TrainConfig, load_config
from orchestrator.data.choice import choose
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.embedded import embedded
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_critiques import PROMPT, REFUSAL
from orchestrator.training.offline import offline_identity
from workers.multimodal.prompt_encoder import PromptEncoder


class _Trained:
    """Leaves what a run leaves, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.runs: list[TrainConfig] = []

    def __call__(self, config: TrainConfig) -> None:
        self.runs.append(config)
        folder = RunFolder(Path(config.run.dir))
        checkpoint = folder.checkpoint(config.run.steps)
        (checkpoint / "policy").mkdir(parents=True)
        identity = offline_identity(config, open_data(config, folder), {})
        (checkpoint / "manifest.json").write_text(json.dumps({"identity": identity}))


def _embedded(folder: Path, train: _Trained, *flags: str) -> TrainConfig:
    config = load_config([*flags, "--run.dir", str(folder), "--model.dtype", "float32"])[0]
    return embedded(config, RunFolder(folder), train=train)


@pytest.mark.parametrize("algo", ["dpo", "kto", "scalar_rm", "critique_rm"])
def test_every_instruction_of_the_store_serves_the_algorithm_and_can_be_read(algo: str, tmp_path: Path) -> None:
    train = _Trained()
    config = _embedded(tmp_path, train, "--algo", algo)
    assert config.offline and config.data.path and config.model.path and not train.runs
    for row in PreferenceStore(Path(config.data.path)).rows():
        assert not isinstance(choose(row.responses, config.needs, score_margin=0.0), str)
    encoder = PromptEncoder(config.model.path)
    read = f"{PROMPT} {config.section(CritiqueRmSection).request} {REFUSAL}" if algo == "critique_rm" else PROMPT
    assert encoder.tokenizer.unk_token_id not in encoder.encode_text(read)


@pytest.mark.parametrize("algo", ["dpo", "critique_rm"])
def test_another_seed_learns_from_other_preferences(algo: str, tmp_path: Path) -> None:
    first, other = (
        PreferenceStore(Path(_embedded(tmp_path, _Trained(), "--algo", algo, "--run.seed", seed).data.path or ""))
        for seed in ("3", "4")
    )
    assert first.manifest.fingerprint != other.manifest.fingerprint


def test_mm_dpo_starts_from_a_policy_that_was_taught_once(tmp_path: Path) -> None:
    train = _Trained()
    first = _embedded(tmp_path, train, "--algo", "mm_dpo", "--run.seed", "3", "--model.lora_rank", "4")
    assert _embedded(tmp_path, train, "--algo", "mm_dpo", "--run.seed", "3", "--model.lora_rank", "4") == first

    with pytest.raises(RefusedInput, match=r"step_000120 has run\.seed = 3, this run has 4"):
        _embedded(tmp_path, train, "--algo", "mm_dpo", "--run.seed", "4")

    (taught,) = train.runs
    assert (taught.algo, taught.run.seed, taught.model.lora_rank) == ("sft", 3, None)
    assert first.model.path == str(RunFolder(Path(taught.run.dir)).checkpoint(taught.run.steps) / "policy")
    assert (first.model.lora_rank, first.section(MmDpoSection).critique_rm_steps) == (4, 120)
    assert first.data.path and taught.data.path
    # Split alike: otherwise the policy would start from images that it is measured on.
    store = PreferenceStore(Path(first.data.path))
    assert taught.data.held_out_frac == store.manifest.held_out_frac
    assert all(r.critique for row in store.rows() for r in row.responses)


def test_mm_dpo_with_a_model_of_ones_own_teaches_nothing(tmp_path: Path) -> None:
    train = _Trained()
    config = _embedded(tmp_path, train, "--algo", "mm_dpo", "--model.path", "mine")
    assert config.model.path == "mine" and not train.runs
