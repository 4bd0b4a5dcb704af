"""The options of the critique reward model and MM-DPO: where they can be set, and what the profiles make of them."""

from pathlib import Path

import pytest

from algorithms.critique_rm import CritiqueRmSection
from algorithms.mm_dpo import MmDpoSection
from algorithms.preference import PreferenceSection
from orchestrator.config import TrainConfig, load_config
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.derived import critique_rm_config

_OWN = ("--data.path", "d", "--data.format", "mm_rlhf", "--model.path", "m")


def _load(*argv: str, algo: str = "mm_dpo") -> TrainConfig:
    return load_config(["--algo", algo, *_OWN, *argv])[0]


def _refusal(*argv: str) -> str:
    with pytest.raises(RefusedInput) as refusal:
        _load(*argv)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def _toml(folder: Path, text: str) -> str:
    (folder / "a.toml").write_text(text)
    return str(folder / "a.toml")


def test_a_nested_section_is_set_by_flags_and_by_files_of_either_spelling(tmp_path: Path) -> None:
    assert _load("--reward.critique.path", "x").reward.critique.path == "x"
    for text in (
        '[reward.critique]\npath = "y"\nmax_new_tokens = 7\n',
        '[reward]\ncritique.path = "y"\ncritique.max_new_tokens = 7\n',
        '[reward]\ncritique = { path = "y", max_new_tokens = 7 }\n',
    ):
        file = _toml(tmp_path, text)
        critique = _load("--config", file).reward.critique
        assert (critique.path, critique.max_new_tokens) == ("y", 7)
        both = _load("--config", file, "--reward.critique.path", "x").reward.critique
        assert (both.path, both.max_new_tokens) == ("x", 7), "a flag overrides its own key alone"
        assert _load("--config", file, "--reward.critique.path", "none").reward.critique.path is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[reward.critique]\npathh = 'x'",
            "unknown key 'reward.critique.pathh' in {file}; did you mean reward.critique.path?",
        ),
        ("[reward.critique.path]\nx = 1", "reward.critique.path = {{'x': 1}} in {file}: expected text"),
        ("[reward]\ncritique = 3", "unknown key 'reward.critique' in {file}"),
        ("[reward.critique]\nweight = -1", "reward.critique.weight = -1 in {file}: must be at least 0.0"),
        (
            "[mm_dpo]\nnegative_margin = 'keep'",
            "mm_dpo.negative_margin = 'keep' in {file}: expected 'clamp', 'drop' or 'flag'",
        ),
        ("[mm_dpo]\nmargin_steepness = 0", "mm_dpo.margin_steepness = 0 in {file}: must be greater than 0.0"),
        ("[critique_rm]\nrequest = ''", "critique_rm.request = '' in {file}: must not be empty"),
    ],
)
def test_a_key_or_value_that_cannot_be_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = _toml(tmp_path, text)
    assert _refusal("--config", file).startswith(sentence.format(file=file))


def test_an_unknown_nested_flag_is_refused() -> None:
    told = "unknown flag --reward.critique.pth; did you mean reward.critique.path?"
    assert _refusal("--reward.critique.pth", "x") == told
    assert _refusal("--reward.critique.weight", "-1").startswith("reward.critique.weight = -1.0 on the command line")


def test_the_profile_of_the_paper_is_the_default() -> None:
    paper, default = _load("--profile", "mmrlhf_paper"), _load()
    assert paper.model_copy(update={"profile": "paper"}) == default
    assert paper.section(PreferenceSection).beta == 0.1
    settings = paper.section(MmDpoSection)
    assert (settings.beta_mode, settings.margin_weight, settings.margin_steepness) == ("margin", 0.5, 0.5)
    assert (settings.negative_margin, settings.sft_once) == ("clamp", False)
    assert paper.section(CritiqueRmSection).head == "linear"
    assert paper.section(CritiqueRmSection).critique_weight == 1.0


def test_the_profile_of_the_release_is_what_its_scripts_run(tmp_path: Path) -> None:
    released = _load("--profile", "mmrlhf_released")
    settings = released.section(MmDpoSection)
    assert (settings.beta_mode, settings.margin_weight) == ("batch_implicit", 0.1)
    assert (settings.sft_weight, settings.sft_mean, settings.sft_once) == (0.25, "token", False)
    assert (released.section(CritiqueRmSection).head, released.section(CritiqueRmSection).critique_weight) == (
        "mlp",
        2.0,
    )
    assert (released.section(CritiqueRmSection).centering, released.section(CritiqueRmSection).score_weight) == (
        0.01,
        1.0,
    )
    assert released.section(PreferenceSection).beta == 0.1
    optimizer = released.optimizer
    assert (optimizer.lr, optimizer.warmup_frac, optimizer.min_lr_frac) == (1e-6, 0.1, 0.0)
    assert (optimizer.schedule, optimizer.weight_decay) == ("cosine", 0.0)
    own = _load("--profile", "mmrlhf_released", "--config", _toml(tmp_path, "mm_dpo.beta_mode = 'fixed'"))
    assert own.section(MmDpoSection).beta_mode == "fixed", "a profile ranks below files"


def test_the_model_that_is_trained_first_keeps_the_runs_data_and_has_its_own_steps() -> None:
    config = _load(
        *("--run.dir", "r", "--run.steps", "60", "--run.seed", "5", "--mm_dpo.critique_rm_steps", "120"),
        *("--mm_dpo.critique_rm_lr", "2e-3", "--policy.train_batch_size", "32", "--profile", "mmrlhf_released"),
    )
    first = critique_rm_config(config)
    assert (first.algo, first.run.dir, first.run.steps, first.run.seed) == ("critique_rm", "r/critique_rm", 120, 5)
    assert first.optimizer.lr == 2e-3
    assert first.policy.train_batch_size == 32 and first.data == config.data and first.model == config.model
    assert first.section(CritiqueRmSection) == config.section(CritiqueRmSection), "what the profile gave is not lost"
    assert first.needs.critiques and not first.needs.margins


def test_without_steps_and_rate_of_its_own_it_takes_the_runs() -> None:
    first = critique_rm_config(_load("--run.steps", "60", "--optimizer.lr", "3e-4"))
    assert (first.run.steps, first.optimizer.lr) == (60, 3e-4)
    assert first.run.dir == "runs/mm_dpo/critique_rm"


def test_it_is_there_whatever_reference_and_adapter_the_run_has() -> None:
    config = _load("--model.lora_rank", "4", "--reference.mode", "lora_off", "--mm_dpo.sft_weight", "0")
    first = critique_rm_config(config)
    assert (first.model.lora_rank, first.reference_workers) == (4, 0)
