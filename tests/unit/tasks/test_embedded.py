"""What a run without data of its own learns from: files as a user would have them, and a model that can read them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from algorithms.critique_rm import CritiqueRmSection
from algorithms.mm_dpo import MmDpoSection
from orchestrator.config import TrainConfig, load_config
from orchestrator.data.choice import choose
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData, open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import embedded as embedded_module
from orchestrator.pipeline.embedded import embedded, teach
from orchestrator.pipeline.stages import Running
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_critiques import PROMPT, REFUSAL
from orchestrator.training.offline import offline_identity
from tests.checkpoints import leave_checkpoint
from workers.multimodal.prompt_encoder import PromptEncoder


def _embedded(folder: Path, *flags: str) -> TrainConfig:
    return embedded(load_config([*flags, "--run.dir", str(folder), "--model.dtype", "float32"])[0], RunFolder(folder))


@pytest.mark.parametrize("algo", ["dpo", "kto", "scalar_rm", "critique_rm"])
def test_every_instruction_of_the_store_serves_the_algorithm_and_can_be_read(algo: str, tmp_path: Path) -> None:
    config = _embedded(tmp_path, "--algo", algo)
    assert config.offline and config.data.path and config.model.path
    for row in PreferenceStore(Path(config.data.path)).rows():
        assert not isinstance(choose(row.responses, config.needs, score_margin=0.0), str)
    encoder = PromptEncoder(config.model.path)
    read = f"{PROMPT} {config.section(CritiqueRmSection).request} {REFUSAL}" if algo == "critique_rm" else PROMPT
    assert encoder.tokenizer.unk_token_id not in encoder.encode_text(read)


@pytest.mark.parametrize("algo", ["dpo", "critique_rm"])
def test_another_seed_learns_from_other_preferences(algo: str, tmp_path: Path) -> None:
    first, other = (
        PreferenceStore(Path(_embedded(tmp_path, "--algo", algo, "--run.seed", seed).data.path or ""))
        for seed in ("3", "4")
    )
    assert first.manifest.fingerprint != other.manifest.fingerprint


def test_mm_dpo_starts_from_a_policy_that_was_taught_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[TrainConfig] = []

    def learn(config: TrainConfig, plan: object, folder: RunFolder, data: OfflineData, tables: object) -> None:
        runs.append(config)
        checkpoint = folder.checkpoint(config.run.steps)
        shutil.copytree(config.model.folder, checkpoint / "policy")
        leave_checkpoint(folder.root, offline_identity(config, data, {}), step=config.run.steps)

    monkeypatch.setattr(embedded_module, "learn", learn)
    flags = ("--algo", "mm_dpo", "--run.seed", "3", "--model.lora_rank", "4")
    plan: Any = None
    told: list[str] = []
    for _ in range(2):
        config, folder = _embedded(tmp_path, *flags), RunFolder(tmp_path)
        running = Running(config=config, plan=plan, folder=folder, data=open_data(config, folder))
        teach(running, lambda text: told.append(str(text)))
    assert told[1] == f"{told[0]}, made before"

    with pytest.raises(RefusedInput, match=r"step_000120 has run\.seed = 3, this run has 4"):
        _embedded(tmp_path, "--algo", "mm_dpo", "--run.seed", "4")

    (taught,) = runs
    assert (taught.algo, taught.run.seed, taught.model.lora_rank) == ("sft", 3, None)
    first = running.config
    assert first == config, "what lies there is known before the stage is reached"
    assert first.model.path == str(RunFolder(Path(taught.run.dir)).checkpoint(taught.run.steps) / "policy")
    assert (first.model.lora_rank, first.section(MmDpoSection).critique_rm_steps) == (4, 120)
    assert first.data.path and taught.data.path
    # Split alike: otherwise the policy would start from images that it is measured on.
    store = PreferenceStore(Path(first.data.path))
    assert taught.data.held_out_frac == store.manifest.held_out_frac
    assert all(r.critique for row in store.rows() for r in row.responses)


def test_a_model_of_ones_own_is_kept(tmp_path: Path) -> None:
    assert _embedded(tmp_path, "--algo", "mm_dpo", "--model.path", "mine").model.path == "mine"
