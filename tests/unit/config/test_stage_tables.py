"""Several runs in one file: what each ``[[stage]]`` is configured as, and what is refused before the first starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from algorithms.critique_rm import CritiqueRmSection
from orchestrator.config import load_config
from orchestrator.config.load import load_runs
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import several
from orchestrator.pipeline.embedded import embedded
from orchestrator.run.folder import RunFolder
from orchestrator.run.model_folder import plain_folder, policy_folder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain

_THREE = """
[run]
dir = "{dir}"
steps = 3
[optimizer]
lr = 1e-3

[[stage]]
name = "first"
algo = "dpo"
model.path = "{model}"
data.path = "{data}"
data.format = "plain_dpo"
reference.mode = "precomputed"

[[stage]]
name = "second"
algo = "ipo"
from = "first"
data.path = "stage:first/store"
run.steps = 5

[[stage]]
name = "third"
algo = "dpo"
model.path = "{model}"
data.path = "{data}"
data.format = "plain_dpo"
reference.mode = "precomputed"
reference.path = "stage:first/reference"
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("tables") / "model", seed=0)


@pytest.fixture
def file(model: Path, tmp_path: Path) -> Path:
    rows = [plain(prompt=f"which {word} ?", chosen="which", rejected="? ?") for word in ("a", "b")]
    data = write_jsonl(tmp_path / "rows.jsonl", *rows)
    (tmp_path / "three.toml").write_text(_THREE.format(dir=tmp_path / "run", model=model, data=data))
    return tmp_path / "three.toml"


def _refusal(*argv: str) -> str:
    with pytest.raises(RefusedInput) as caught:
        load_runs(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_stage_has_its_own_settings_over_those_of_all_and_flags_over_them(file: Path, tmp_path: Path) -> None:
    runs, _ = load_runs(["--config", str(file), "--optimizer.lr", "2e-3"])
    assert [run.name for run in runs] == ["first", "second", "third"]
    assert [(run.config.algo, run.config.run.steps) for run in runs] == [("dpo", 3), ("ipo", 5), ("dpo", 3)]
    assert [run.config.run.dir for run in runs] == [str(tmp_path / "run" / run.name) for run in runs]
    assert {run.config.optimizer.lr for run in runs} == {2e-3}
    assert [run.made_elsewhere() for run in runs] == [
        {},
        {"model.path": "first", "data.path": "first"},
        {"reference.path": "first"},
    ]


def test_without_a_folder_it_is_called_after_the_file(file: Path) -> None:
    file.write_text(file.read_text().replace("dir = ", "# dir = "))
    assert load_runs(["--config", str(file)])[0][1].config.run.dir == "runs/three/second"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "second"', 'name = "first"', "stage 2 in {file}: name = 'first' is that of stage 1 too"),
        ('name = "second"', "", "stage 2 in {file}: name is None, expected letters, digits, '_' and '-'"),
        ('name = "second"', 'name = "../x"',
         "stage 2 in {file}: name is '../x', expected letters, digits, '_' and '-'"),
        ('from = "first"', 'from = "third"',
         "stage 2 in {file}: from = 'third' names no earlier stage; earlier are 'first'"),
        ("stage:first/store", "stage:frist/store",
         "stage 'second': data.path = 'stage:frist/store' names no earlier stage; earlier are 'first'"),
        ('from = "first"', 'from = "first"\nmodel.path = "m"',
         "stage 2 in {file}: from and model.path both say what it begins from"),
        ("run.steps = 5", 'run.dir = "x"',
         "run.dir in stage 'second' of {file}: a stage has a folder of its name in the run.dir of all"),
        ("run.steps = 5", "run.stepz = 5",
         "unknown key 'run.stepz' in stage 'second' of {file}; did you mean run.steps?"),
        ("run.steps = 5", "run.steps = 0", "run.steps = 0 in stage 'second' of {file}: must be at least 1"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_stage_is_refused_by_name(old: str, new: str, told: str, file: Path) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    assert _refusal("--config", str(file)) == told.format(file=file)


def test_flags_and_files_that_leave_open_whose_they_are_are_refused(file: Path, tmp_path: Path) -> None:
    assert _refusal("--config", str(file), "--algo", "dpo") == f"--algo is each [[stage]]'s own in {file}"
    other = tmp_path / "other.toml"
    other.write_text('[[stage]]\nname = "a"\n')
    assert _refusal("--config", str(file), str(other)).startswith(f"[[stage]] stands in {file} and in {other}")
    other.write_text("stage = 3\n")
    assert _refusal("--config", str(other)) == f"stage in {other} is no list of tables; write [[stage]] above each"
    with pytest.raises(RefusedInput, match=r"\[\[stage\]\] tables is for orchestrator.train alone"):
        load_config(["--config", str(file)])


def test_a_dry_run_tells_every_stage_and_what_is_not_there_yet(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(file), "--dry_run"]) == 0
    told = capsys.readouterr().out.splitlines()
    root = tmp_path / "run"
    assert [line for line in told if line.startswith("run ")] == [
        f"run 1 of 3, first: dpo in {root}/first",
        f"run 2 of 3, second: ipo in {root}/second, model.path from first, data.path from first",
        f"run 3 of 3, third: dpo in {root}/third, reference.path from first",
    ]
    assert told.count("data: learned from: 2 of 2 rows, 4 of their 4 responses, 2 pairs") == 2
    assert "data: not looked at, as 'stage:first/store' is not on this machine" in told
    assert not root.exists()


def _left(config: TrainConfig) -> None:
    """What a run leaves."""
    policy = RunFolder(Path(config.run.dir)).checkpoint(config.run.steps) / "policy"
    policy.mkdir(parents=True)
    (policy.parent / "manifest.json").write_text("{}")
    (Path(config.run.dir) / "store").mkdir()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    runs: list[TrainConfig] = []

    def train(config: TrainConfig) -> None:
        runs.append(config)
        _left(config)

    monkeypatch.setattr(several, "train", train)
    return runs


def test_each_run_finds_what_those_before_it_have_made(file: Path, tmp_path: Path, trained: list[TrainConfig]) -> None:
    assert main(["--config", str(file)]) == 0
    root = tmp_path / "run"
    second, third = trained[1:]
    assert second.model.path == str(root / "first" / "checkpoints" / "step_000003" / "policy")
    assert second.data.path == str(root / "first" / "store")
    assert third.reference.path == str(root / "first" / "reference")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text.replace('name = "third"', 'name = "third"\nmodel.dtype = "float32"\nmodel.freeze = ["all"]'),
         "model.freeze"),
        (lambda text: text + 'reward.critique.path = "stage:second"\n', "is no critique reward model, as its algo is"),
        (lambda text: text + 'data.max_prompt_tokens = 1\n', "its prompt has"),
        (lambda text: text + 'run.trackers = ["nothing_of_this_name"]\n', "run.trackers"),
        (lambda text: text + 'data.eval_path = "no/file"\n', "data.eval_path 'no/file' is not a file"),
    ],
)  # fmt: skip
def test_a_later_stage_is_refused_before_the_first_one_starts(
    spoil: Callable[[str], str], told: str, file: Path, trained: list[TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(spoil(file.read_text()))
    assert main(["--config", str(file)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and trained == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--model.path", "m"), "--model.path is for all stages, but stage 'second' of {file} has 'stage:first' there"),
        (("--data.path", "d"),
         "--data.path is for all stages, but stage 'second' of {file} has 'stage:first/store' there"),
    ],
)  # fmt: skip
def test_a_flag_does_not_cut_a_stage_off_from_another(flags: tuple[str, ...], told: str, file: Path) -> None:
    assert _refusal("--config", str(file), *flags) == told.format(file=file)


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ('data.path = "stage:first//etc/store"', "data.path = 'stage:first//etc/store' leaves the stage's folder"),
        ('data.path = "stage:first/../x"', "data.path = 'stage:first/../x' leaves the stage's folder"),
    ],
)
def test_a_stage_reads_nothing_outside_the_folder_of_another(new: str, told: str, file: Path) -> None:
    file.write_text(file.read_text().replace('data.path = "stage:first/store"', new))
    assert _refusal("--config", str(file)) == f"stage 'second': {told}"


def test_a_model_that_is_no_table_is_refused(file: Path) -> None:
    file.write_text(file.read_text().replace('from = "first"', 'from = "first"\nmodel = "m"'))
    assert _refusal("--config", str(file)) == f"stage 2 in {file}: model = 'm', expected a table, or model.path"


def test_without_tables_a_path_names_no_stage_and_other_words_are_words() -> None:
    own = ("--algo", "critique_rm", "--data.path", "d")
    told = _refusal(*own, "--model.path", "stage:sft")
    assert told == "model.path = 'stage:sft' names no earlier stage; earlier are none"
    words = load_config([*own, "--model.path", "m", "--critique_rm.request", "stage: right ?"])[0]
    assert words.section(CritiqueRmSection).request == "stage: right ?"


def test_must_asks_that_some_stage_has_begun_and_lets_the_others_begin(
    file: Path, tmp_path: Path, trained: list[TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--config", str(file), "--run.resume", "must"]
    assert main(flags) == 2 and "no stage has a complete checkpoint" in capsys.readouterr().err and trained == []
    runs, _ = load_runs(["--config", str(file)])
    _left(runs[0].config)
    (tmp_path / "run" / "first" / "checkpoints" / "step_000003" / "manifest.json").write_text('{"identity": {}}')
    (tmp_path / "run" / "second").mkdir()
    asked = load_runs(flags)[0]
    assert [several._found(run, asked).run.resume for run in (asked[0], asked[2])] == ["must", "auto"]


@pytest.mark.parametrize("share", [False, True])
def test_an_adapter_is_merged_for_a_later_stage_unless_it_is_wanted_as_it_is(share: bool) -> None:
    flags = ("--algo", "ppo", "--model.path", "m", "--data.path", "d", "--model.lora_rank", "4")
    config, _ = load_config([*flags, "--placement.share_base", str(share).lower()])
    made = {option: several._model_for(option, config) for option in ("model.path", "model.adapter", "critic.path")}
    shared = policy_folder if share else plain_folder
    assert made == {"model.path": plain_folder, "model.adapter": policy_folder, "critic.path": shared}


def test_a_later_stage_is_placed_by_the_model_that_the_first_began_from(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "two.toml"
    cluster.write_text("".join(f'[[nodes]]\nname = "{n}"\ncpus = 8\ngpus = 1\ngpu_memory_gib = 80\n' for n in "ab"))
    file.write_text(
        '[[stage]]\nname = "cold"\nalgo = "sft"\n[[stage]]\nname = "judge"\nalgo = "grpo"\nfrom = "cold"\n'
        "policy.num_ranks = 2\nrollout.num_engines = 2\n"
    )
    assert main(["--config", str(file), "--placement.cluster", str(cluster), "--dry_run"]) == 0
    assert "run 2 of 2, judge: grpo" in capsys.readouterr().out


def test_a_store_of_an_earlier_stage_is_learned_from_as_a_store(file: Path) -> None:
    file.write_text(file.read_text().replace('algo = "ipo"', 'algo = "sft"'))
    assert [run.config.data_kind for run in load_runs(["--config", str(file)])[0]] == ["preferences"] * 3


def test_a_model_of_the_embedded_task_without_the_words_of_critiques_is_refused(model: Path, tmp_path: Path) -> None:
    config = load_config(["--algo", "critique_rm", "--model.path", str(model), "--run.dir", str(tmp_path)])[0]
    with pytest.raises(RefusedInput, match="lacks words of the embedded critiques"):
        embedded(config, RunFolder(tmp_path))
