"""A stage that measures what an earlier one has made; training and the model's answers are stood in for."""

import shutil
from pathlib import Path

import pytest

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config import TrainConfig
from orchestrator.config.load import load_runs
from orchestrator.errors import RefusedInput
from orchestrator.evaluation import benchmark_run
from orchestrator.evaluation.benchmark_run import BenchmarkRun
from orchestrator.evaluation.benchmarks.asking import ask_all
from orchestrator.evaluation.predictions import Predictions
from orchestrator.pipeline import several
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from tests.checkpoints import leave_checkpoint
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain
from tests.unit.evaluation.released_files import cell, parquet

_STAGES = """
run.dir = "{root}/run"
run.steps = 3

[[stage]]
name = "judge"
algo = "dpo"
model.path = "{root}/model"
data.path = "{root}/rows.jsonl"
data.format = "plain_dpo"

[[stage]]
name = "measured"
evaluate = "vl_reward_bench"
from = "judge"
data.path = "{root}/pairs.parquet"
votes = 3
compat = ["official"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    build_digits_model(tmp_path / "model", seed=0)
    write_jsonl(tmp_path / "rows.jsonl", plain(prompt="which ?", chosen="which", rejected="? ?"))
    rows = [
        {"id": "mmmu_1", "query": "which ?", "response": ["a", "b"], "human_ranking": [0, 1], "image": cell(i)}
        for i in range(4)
    ]
    parquet(tmp_path / "pairs.parquet", *rows)
    (tmp_path / "stages.toml").write_text(_STAGES.format(root=tmp_path))
    return tmp_path / "stages.toml"


class StoodIn:
    """What was trained, and how many answers were asked for; every verdict is for the response shown first."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.trained, self.num_asked, self._root = list[str](), 0, root
        patch.setattr(several, "train", self._train)
        patch.setattr(benchmark_run, "answers_of", self._answers)

    def _train(self, config: TrainConfig) -> None:
        self.trained.append(config.run.dir)
        policy = RunFolder(Path(config.run.dir)).checkpoint(config.run.steps) / "policy"
        shutil.copytree(self._root / "model", policy, dirs_exist_ok=True)
        identity = option_identity(settled_dtype(config, PlacementPlan("colocated", (), ())))
        leave_checkpoint(Path(config.run.dir), identity, step=config.run.steps)

    def _answers(self, run: BenchmarkRun, scorer: object) -> Predictions:
        kept = Predictions(run.folder.root, asked={"model": run.config.model.folder})
        before = len(kept)
        ask_all(
            run.items.items,
            run.benchmark,
            run.options,
            asks=run.benchmark.asks,
            ask=lambda asked: [one.prediction(n, text="<answer>1</answer>") for one in asked for n in one.samples],
            kept=kept,
        )
        self.num_asked += len(kept) - before
        return kept


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> StoodIn:
    return StoodIn(monkeypatch, tmp_path)


def test_it_measures_the_model_that_the_stage_before_it_left_and_asks_once(
    file: Path, tmp_path: Path, stood_in: StoodIn, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run" / "measured"
    assert main(["--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"run 2 of 2, measured: evaluate vl_reward_bench in {out}, model.path from judge" in said
    assert said.endswith((out / "scores.md").read_text())
    assert "|  | strict | official |" in said and "| accuracy | 0.500 " in said
    assert str(tmp_path / "run" / "judge" / "checkpoints" / "step_000003") in (out / "scores.json").read_text()
    assert stood_in.num_asked == 4 * 2 * 4
    assert main(["--config", str(file)]) == 0
    assert stood_in.num_asked == 4 * 2 * 4
    assert main(["--config", str(file), "--run.resume", "never"]) == 0
    assert stood_in.num_asked == 2 * 4 * 2 * 4
    # More votes ask for the rest alone.
    file.write_text(file.read_text().replace("votes = 3", "votes = 5"))
    assert main(["--config", str(file)]) == 0
    assert stood_in.num_asked == 2 * 4 * 2 * 4 + 4 * 2 * 2


def test_a_dry_run_names_it_and_writes_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["--config", str(file), "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert f"evaluate: vl_reward_bench, 4 rows of {tmp_path}/pairs.parquet, both orders, 3 samples that vote" in said
    assert "layout colocated: workers 1, placement groups 1" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("votes = 3", "votes = 4", "stage 2 in {file}: votes = 4: expected an odd number"),
        ('"vl_reward_bench"', '"vl_bench"', "benchmark = 'vl_bench': expected one of"),
        ('"vl_reward_bench"', '"reward_bench_2"', "compat = 'official': reward_bench_2 is counted as strict"),
        ('compat = ["official"]', 'evaluate = "reward_bench_2"', "is of rewards, which only a reward model"),
        ('algo = "dpo"', 'algo = "scalar_rm"', "votes = 3: vl_reward_bench is asked for no verdicts that vote"),
        ('"vl_reward_bench"', '"mmhal"', "evaluate = 'mmhal' is rated by a judge: give reward.judge_url"),
        ('"vl_reward_bench"', '"pope"', "compat = 'lmms': pope is counted as strict, official, lmms_eval"),
        ('["official"]', "[]\nalgo = 'sft'", "stage 2 in {file}: evaluate and algo both say what it does"),
        ('data.path = "{root}/pairs.parquet"', "", "stage 2 in {file}: evaluate needs data.path"),
        ("pairs.parquet", "none.parquet", "none.parquet' is not a file"),
        ("votes = 3", 'template = "{root}/rows.jsonl"', "the template has {{question}} 0 times"),
        ("votes = 3", "rollout.num_engines = 999", "999"),
        ("votes = 3", "votez = 3", "unknown key 'votez' in stage 'measured'"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_the_first_stage_starts(
    old: str, new: str, told: str, file: Path, tmp_path: Path, stood_in: StoodIn, capsys: pytest.CaptureFixture[str]
) -> None:
    text = file.read_text()
    old, new = (word.replace("{root}", str(tmp_path)) for word in (old, new))
    assert old in text
    text = text.replace(old, new)
    if new.startswith("evaluate"):
        text = text.replace('evaluate = "vl_reward_bench"', "")
    file.write_text(text.replace('"official"', '"lmms"') if "lmms" in told else text)
    assert main(["--config", str(file)]) == 2
    assert told.format(file=file) in capsys.readouterr().err
    assert stood_in.trained == [] and not (tmp_path / "run").exists()


def test_nothing_begins_from_a_stage_that_trains_nothing(file: Path) -> None:
    more = file.read_text() + '\n[[stage]]\nname = "next"\nalgo = "sft"\ndata.path = "rows.jsonl"\n'
    for line in ('from = "measured"', 'model.path = "stage:measured"'):
        file.write_text(more + line)
        with pytest.raises(RefusedInput, match="names no earlier stage; earlier are 'judge'"):
            load_runs(["--config", str(file)])
