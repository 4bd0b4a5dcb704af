"""Where each value comes from, and the one line that refuses what cannot be used."""

import json
from pathlib import Path

import pytest

from algorithms.policy_gradient import AlgorithmSection
from algorithms.registry import ALGORITHMS
from orchestrator.config import TrainConfig, load_config, resolved_json
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.derived import cold_start_config
from orchestrator.rewards.check import service_arguments
from orchestrator.run.folder import RunFolder

_OWN_DATA = ("--data.path", "rows.json", "--model.path", "model")


def _load(*argv: str) -> TrainConfig:
    return load_config(argv)[0]


def _refusal(*argv: str) -> str:
    with pytest.raises(RefusedInput) as caught:
        load_config(argv)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def _toml(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_flags_override_files_and_later_files_override_earlier_ones(tmp_path: Path) -> None:
    first = _toml(tmp_path, "a.toml", "[optimizer]\nlr = 1e-3\nweight_decay = 0.1\n[run]\nseed = 1\n")
    second = _toml(tmp_path, "b.toml", "[optimizer]\nweight_decay = 0.2\n[run]\nseed = 2\n")
    config = _load("--algo", "sft", "--run.seed", "3", "--config", first, second)
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.run.seed) == (1e-3, 0.2, 3)


def test_repeated_config_flag_adds_files(tmp_path: Path) -> None:
    first = _toml(tmp_path, "a.toml", "run.seed = 1\nrun.steps = 7")
    second = _toml(tmp_path, "b.toml", "run.seed = 2")
    config = _load("--config", first, "--algo", "sft", "--config", second)
    assert (config.run.seed, config.run.steps) == (2, 7)


def test_a_file_may_name_the_algorithm(tmp_path: Path) -> None:
    config = _load("--config", _toml(tmp_path, "a.toml", 'algo = "reinforce_pp"'))
    assert (config.algo, config.section(AlgorithmSection).adv_filter) == ("reinforce_pp", "none")


def test_reinforce_pp_is_stable_reinforce_without_its_guards() -> None:
    guarded = _load("--algo", "stable_reinforce").section(AlgorithmSection)
    bare = _load("--algo", "reinforce_pp").section(AlgorithmSection)
    assert (guarded.adv_filter, guarded.preclip_min, guarded.preclip_max) == ("sigma3", 1e-3, 1e3)
    assert (bare.adv_filter, bare.preclip_min, bare.preclip_max) == ("none", None, None)


def test_released_profile_ranks_below_files_and_flags(tmp_path: Path) -> None:
    file = _toml(tmp_path, "a.toml", "algorithm.kl_coef = 0.5")
    config = _load("--algo", "stable_reinforce", "--profile", "r1_released", *_OWN_DATA, "--config", file)
    assert (config.section(AlgorithmSection).adv_filter, config.section(AlgorithmSection).kl_coef) == (
        "r1_released",
        0.5,
    )
    assert config.optimizer.lr == 3e-7


def test_the_released_profile_scores_as_the_release_and_the_service_is_told_so(tmp_path: Path) -> None:
    released = ("--algo", "stable_reinforce", "--profile", "r1_released", *_OWN_DATA)
    for argv, scoring in (
        (released[:2], "strict"),
        (released, "compat"),
        ((*released, "--reward.scoring", "strict"), "strict"),
    ):
        config = _load(*argv)
        arguments = service_arguments(config, RunFolder(tmp_path))
        assert (config.reward.scoring, arguments[arguments.index("--scoring") + 1]) == (scoring, scoring)


def test_unknown_verdicts_are_bounded_where_a_model_judges() -> None:
    base = ("--algo", "stable_reinforce")
    model = ("--reward.judge", "openai", "--reward.judge_url", "http://h/v1", "--reward.judge_model", "m")
    assert _load(*base).max_unknown is None
    assert _load(*base, *model).max_unknown == 0.5
    assert _load(*base, "--reward.url", "http://h").max_unknown == 0.5
    assert _load(*base, "--reward.max_unknown", "0.2").max_unknown == 0.2


def test_without_data_the_embedded_task_sets_its_own_defaults() -> None:
    embedded = _load("--algo", "stable_reinforce", "--run.steps", "5")
    assert embedded.embedded_task
    assert (embedded.optimizer.lr, embedded.optimizer.schedule, embedded.run.steps) == (4e-4, "linear", 5)
    own = _load("--algo", "stable_reinforce", *_OWN_DATA)
    assert not own.embedded_task
    assert (own.optimizer.lr, own.optimizer.schedule) == (1e-6, "cosine")


def test_cold_start_takes_its_own_recipe_and_keeps_the_runs_workers() -> None:
    argv = ("--algo", "stable_reinforce", "--run.seed", "7", "--policy.num_ranks", "2", "--optimizer.lr", "0.5")
    cold = cold_start_config(_load(*argv))
    assert (cold.algo, cold.run.steps, cold.optimizer.lr, cold.optimizer.schedule) == ("sft", 220, 2e-3, "constant")
    assert (cold.run.seed, cold.policy.num_ranks) == (7, 2)
    assert cold.run.dir == "runs/stable_reinforce/cold_start"


def test_cold_start_that_does_not_fit_the_ranks_is_refused() -> None:
    config = _load("--algo", "stable_reinforce", "--policy.num_ranks", "128")
    with pytest.raises(RefusedInput, match=r"policy\.train_batch_size = 64 .* policy\.num_ranks = 128"):
        cold_start_config(config)


def test_sft_alone_uses_the_cold_start_recipe() -> None:
    assert _load("--algo", "sft").policy.train_batch_size == 64


def test_run_folder_is_named_after_the_algorithm() -> None:
    assert _load("--algo", "sft").run.dir == "runs/sft"
    assert _load("--algo", "sft", "--run.dir", "elsewhere").run.dir == "elsewhere"


@pytest.mark.parametrize("words", [["vision,bridge"], ["vision", "bridge"], ["vision bridge"], ["vision,", "bridge"]])
def test_lists_are_separated_by_commas_or_spaces(words: list[str]) -> None:
    assert _load("--algo", "sft", "--model.freeze", *words).model.freeze == ("vision", "bridge")


def test_the_word_none_unsets_an_optional_value(tmp_path: Path) -> None:
    file = _toml(tmp_path, "a.toml", 'algorithm.preclip_max = "none"')
    config = _load("--algo", "stable_reinforce", "--algorithm.preclip_min", "none", "--config", file)
    assert (config.section(AlgorithmSection).preclip_min, config.section(AlgorithmSection).preclip_max) == (None, None)


def test_a_value_may_follow_an_equals_sign_or_be_negative() -> None:
    assert _load("--algo=sft", "--run.seed=4").run.seed == 4
    assert _refusal("--algo", "sft", "--run.seed", "-4") == "run.seed = -4 on the command line: must be at least 0"


def test_hyphens_and_underscores_in_flags_are_the_same() -> None:
    config, options = load_config(["--algo", "sft", "--run.checkpoint-every", "3", "--dry-run"])
    assert (config.run.checkpoint_every, options.dry_run) == (3, True)
    assert not load_config(["--algo", "sft"])[1].dry_run


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "--algo is not set"),
        (["sft"], "unexpected argument 'sft': every value follows its --flag"),
        (["--algo", "sft", "--run.steps"], "--run.steps needs a value"),
        (["--algo", "sft", "--run.steps", "1", "2"], "--run.steps takes one value, got '1 2'"),
        (["--algo", "sft", "--dry-run", "yes"], "--dry-run takes no value, got 'yes'"),
        (["--algo", "sft", "--lr", "1"], "unknown flag --lr; did you mean optimizer.lr or critic.lr?"),
        (["--algo", "sft", "--optimizer.lrr", "1"], "unknown flag --optimizer.lrr; did you mean optimizer.lr?"),
        (["--algo", "sft", "--zzz", "1"], "unknown flag --zzz"),
        (
            ["--algo", "sfft"],
            "algo = 'sfft' on the command line: expected one of 26 names, which --help lists; the nearest are 'sft', "
            "'fact_rm', 'distill'",
        ),
        (
            ["--algo", "sft", "--optimizer.lr", "fast"],
            "optimizer.lr = 'fast' on the command line: expected a number",
        ),
        (
            ["--algo", "sft", "--optimizer.lr", "nan"],
            "optimizer.lr = nan on the command line: expected a finite number",
        ),
        (
            ["--algo", "sft", "--run.steps", "1.5"],
            "run.steps = '1.5' on the command line: expected an integer",
        ),
        (
            ["--algo", "sft", "--model.gradient_checkpointing", "yes"],
            "model.gradient_checkpointing = 'yes' on the command line: expected true or false",
        ),
        (
            ["--algo", "sft", "--optimizer.betas", "0.9", "1.5"],
            "optimizer.betas.1 = 1.5 on the command line: must be less than 1.0",
        ),
        (
            ["--algo", "sft", "--policy.zero_stage", "4"],
            "policy.zero_stage = 4 on the command line: must be at most 3",
        ),
        (
            ["--algo", "sft", "--config", "absent.toml"],
            "--config absent.toml cannot be read (No such file or directory)",
        ),
        (
            ["--algo", "sft", "--model.path", "m\0"],
            "the word 'm\\x00' holds a NUL character, which none can",
        ),
        (
            ["--algo", "sft", "--rollout.num_engines", f"{10**30}"],
            f"rollout.num_engines = {10**30} on the command line: must be at most 10000",
        ),
        (
            ["--algo", "sft", "--run.steps", "1000000001"],
            "run.steps = 1000000001 on the command line: must be at most 1000000000",
        ),
        (
            ["--algo", "sft", "--reward.timeout_s", "1e300"],
            "reward.timeout_s = 1e+300 on the command line: must be at most 100000000.0",
        ),
    ],
)
def test_a_bad_command_line_is_refused_in_one_line(argv: list[str], sentence: str) -> None:
    assert _refusal(*argv) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[optimizer]\nlrr = 1.0", "unknown key 'optimizer.lrr' in {file}; did you mean optimizer.lr?"),
        ("optimizer = 3", "unknown key 'optimizer' in {file}; did you mean optimizer.lr?"),
        ("[optimizer]\nlr = true", "optimizer.lr = True in {file}: expected a number"),
        ("run.steps = '5'", "run.steps = '5' in {file}: expected an integer"),
        ("reward.min_coverage = 2", "reward.min_coverage = 2 in {file}: must be at most 1.0"),
        ("model.freeze = 'vision'", "model.freeze = 'vision' in {file}: expected a list"),
        ("data.path.x = 1", "data.path = {{'x': 1}} in {file}: expected text"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    file = _toml(tmp_path, "a.toml", text)
    assert _refusal("--algo", "sft", "--config", file) == sentence.format(file=file)


def test_broken_toml_is_refused_with_its_place(tmp_path: Path) -> None:
    sentence = _refusal("--algo", "sft", "--config", _toml(tmp_path, "a.toml", "seed 3"))
    assert "a.toml is not valid TOML" in sentence and "line 1" in sentence


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--policy.train_batch_size", "100"],
            "rollout.prompts_per_step * rollout.samples_per_prompt = 256 * 1 = 256 is not a multiple of "
            "policy.train_batch_size = 100",
        ),
        (["--policy.num_ranks", "3"], "policy.train_batch_size = 128 is not a multiple of policy.num_ranks = 3"),
        (["--data.path", "x"], "model.path is not set, but data.path = 'x' needs a model folder"),
        (["--data.eval_path", "x"], "data.path is not set, but data.eval_path = 'x' belongs to it"),
        (
            ["--reward.url", "https://user:s3cret@host/v1"],
            "reward.url holds credentials, which config.json, logs and lists of processes would show; put them into "
            "reward.token_file",
        ),
        (
            ["--reward.judge_url", "http://s3cret@host"],
            "reward.judge_url holds credentials, which config.json, logs and lists of processes would show; put them "
            "into reward.judge_key_file",
        ),
        (
            ["--reward.url", "http://s3cret%40host"],
            "reward.url holds credentials, which config.json, logs and lists of processes would show; put them into "
            "reward.token_file",
        ),
        (
            ["--reward.judge_url", "http://host/v1?api_key=s3cret"],
            "reward.judge_url holds a query string or a fragment; a key belongs into reward.judge_key_file",
        ),
        (
            ["--reward.url", "http://host/#s3cret"],
            "reward.url holds a query string or a fragment; a key belongs into reward.token_file",
        ),
        (["--reward.url", "s3cret"], "reward.url should start with http:// or https:// and name a host"),
        (["--reward.url", "http://host:s3cret"], "reward.url is no address: its host or port cannot be read"),
        (["--reward.url", "http://[s3cret"], "reward.url is no address: its host or port cannot be read"),
        (["--reward.url", "http://host:99999/v1"], "reward.url is no address: its host or port cannot be read"),
        (["--reward.url", "http://host:0/v1"], "reward.url is no address: its port is 0"),
        *(
            (
                ["--reward.judge_url", f"http://s3{odd}cret/v1"],
                "reward.judge_url is no address: it holds a blank or a character that no address has; a host of other "
                "letters has a name that begins with xn--",
            )
            for odd in (" ", "\n", "\x1b", "ü")
        ),
        *(
            (
                ["--reward.url", f"http://{host}/v1"],
                "reward.url is no address: a host has at most 253 characters, and 63 between two dots",
            )
            for host in ("h" * 64, "h." * 200 + "h", "s3..cret")
        ),
        (
            ["--preference.label_smoothing", "0.1"],
            "preference.label_smoothing = 0.1 has no meaning for algo = 'stable_reinforce'",
        ),
        (
            ["--preference.score_margin", "-0.5"],
            "preference.score_margin = -0.5 must be at least 0, or -1 for the largest gap only",
        ),
        (["--reward.judge", "openai"], "reward.judge_url is not set, but reward.judge = 'openai' needs it"),
        (
            ["--model.freeze", "vision,bridge,language"],
            "model.freeze = vision, bridge, language leaves nothing to train",
        ),
        (
            ["--model.attention", "flash_attention_2", "--model.dtype", "float32"],
            "model.attention = 'flash_attention_2' needs model.dtype = 'bfloat16', not 'float32'",
        ),
        (
            ["--policy.offload_optimizer", "true", "--policy.zero_stage", "0"],
            "policy.offload_optimizer = true needs policy.zero_stage of at least 1, not 0",
        ),
        (
            ["--policy.grad_dtype", "float32", "--policy.zero_stage", "0"],
            "policy.grad_dtype = 'float32' needs policy.zero_stage of at least 1, not 0",
        ),
        (["--sync.backend", "nccl"], "sync.backend = 'nccl' needs placement.layout = 'separate', not 'colocated'"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(argv: list[str], sentence: str) -> None:
    assert _refusal("--algo", "stable_reinforce", *argv) == sentence


def test_batch_arithmetic_of_rollouts_does_not_bind_sft() -> None:
    assert _load("--algo", "sft", "--policy.train_batch_size", "100").policy.train_batch_size == 100


def test_several_problems_share_the_line() -> None:
    sentence = _refusal("--algo", "sft", "--run.steps", "0", "--optimizer.lr", "0")
    assert "run.steps = 0" in sentence and "optimizer.lr = 0.0" in sentence


def test_resolved_json_is_complete_and_reads_back() -> None:
    config = _load("--algo", "stable_reinforce", "--model.freeze", "vision")
    assert type(config).model_validate_json(resolved_json(config)) == config
    assert json.loads(resolved_json(config))["optimizer"]["min_lr_frac"] == 0.1


@pytest.mark.parametrize(
    ("algo", "profile", "told"),
    [
        ("reinforce_pp", "r1_released", "algo = 'reinforce_pp' has 'paper'"),
        ("stable_reinforce", "mmrlhf_released", "algo = 'stable_reinforce' has 'paper', 'r1_released'"),
        ("mm_dpo", "papers", "algo = 'mm_dpo' has 'paper', 'mmrlhf_paper', 'mmrlhf_released'"),
    ],
)
def test_a_profile_that_the_algorithm_does_not_have_is_refused(algo: str, profile: str, told: str) -> None:
    said = _refusal("--algo", algo, "--profile", profile)
    assert said == f"profile = {profile!r} on the command line: {told}"


def test_a_stage_keeps_its_runs_profile() -> None:
    cold = cold_start_config(_load("--algo", "stable_reinforce", "--profile", "r1_released"))
    assert (cold.algo, cold.profile, cold.reward.scoring) == ("sft", "r1_released", "compat")


def test_every_registered_algorithm_is_configured_by_its_name() -> None:
    for algo in ALGORITHMS:
        for own in ((), _OWN_DATA):
            teacher = ("--distill.teacher_path", "teacher") if algo == "distill" else ()
            if algo == "fact_rm" and not own:
                continue  # the embedded tasks tell no facts
            config = _load("--algo", algo, *teacher, *own)
            assert config.learner.name == algo and config.learner.settings


def test_help_shows_the_algorithms_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, shown in ((["--algo", "dapo"], "default: token-mean"), ([], "default: seq-mean-token-mean")):
        with pytest.raises(SystemExit):
            load_config([*argv, "--help"])
        assert shown in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_shows_every_option_with_its_unit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_config(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--rollout.max_new_tokens" in shown and "Longest completion, tokens." in shown
