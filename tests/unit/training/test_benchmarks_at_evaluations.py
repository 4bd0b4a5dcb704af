"""A run that is measured on a benchmark: at every evaluation, beside held-out data or without, and kept like them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import TrainConfig
from orchestrator.evaluation.while_training import read_benchmarks
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training import answering as answering_module
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.loop import kept_outcome, run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import evaluation_in, open_session
from orchestrator.training.supervised import SupervisedWork
from tests.in_process import InProcessPool, OneWord
from tests.loops import BUDGET, ScoresByChance, loop_config, metric_rows, run_folder, told_prompts
from tests.unit.evaluation.released_files import jsonl, save
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_ONLINE = ("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "2", "--guard.max_mismatch", "100")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("measured") / "model", seed=0)


def _config(model: Path, root: Path, algo: str, *flags: str) -> TrainConfig:
    save(root / "a.png")
    rows = [{"question_id": i, "image": "a.png", "text": "which digit ?", "label": "no"} for i in range(3)]
    file = jsonl(root / "pope.json", *rows)
    table = root / "eval.toml"
    table.write_text(f'[[eval.benchmark]]\nname = "pope"\npath = "{file}"\nrows = 2\n')
    own = ("--data.path", "rows.json", "--config", str(table), "--rollout.max_new_tokens", "4")
    return loop_config(model, root, algo, *own, *flags)


def _train(
    config: TrainConfig, root: Path, folder: RunFolder, patch: pytest.MonkeyPatch, *, held_out: bool = True
) -> tuple[Any, OneWord]:
    encoder = PromptEncoder(str(config.model.path))
    engines = OneWord(encoder.encode_target("which")[0])
    patch.setattr(answering_module, "policy_engines", lambda *_, **__: engines)
    pool, data = InProcessPool(tokens_per_microbatch=BUDGET), told_prompts(root)
    data = data if held_out else replace(data, held_out=())
    measured = read_benchmarks(config, encoder, most=None, pictures=root / "pictures")
    with open_session(config, folder, pool, identity=online_identity(config, data), counts=data.counts, figures=()) as (
        session,
        start,
    ):
        asked = answering(session, encoder, data, policy_version=start.policy_version, benchmarks=measured)
        work = SupervisedWork(answering=asked, is_stage=False)
        if config.online:
            work = OnlineWork(answering=asked, client=ScoresByChance(0.0))  # type: ignore[arg-type]
        return run(session, work, start), engines


@pytest.mark.parametrize(("algo", "flags"), [("sft", ()), ("grpo", _ONLINE)])
def test_every_evaluation_has_its_figures_and_a_resumed_run_the_same(
    algo: str, flags: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(model, tmp_path, algo, *flags)
    with run_folder(tmp_path) as folder:
        outcome, _ = _train(config, tmp_path, folder, monkeypatch)
        rows = metric_rows(folder)
        measured = {row["step"]: {k: v for k, v in row.items() if k.startswith("eval/pope/")} for row in rows}
        assert [step for step, figures in measured.items() if figures] == [0, 2, 3]
        assert measured[3]["eval/pope/accuracy"] == 0.0 and measured[3]["eval/pope/unreadable"] == 1.0
        assert all("eval/accuracy" in row for row in rows if measured[row["step"]])
        for step in (0, 2, 3):
            kept = evaluation_in(folder, step)
            assert kept is not None and measured[step].items() <= kept.figures.items()
        assert kept_outcome(config, folder).after.figures == outcome.after.figures
        # From the last checkpoint, which is that of the end: nothing is asked again.
        again, engines = _train(config, tmp_path, folder, monkeypatch)
        assert again.before.figures == outcome.before.figures and again.after.figures == outcome.after.figures
        assert "sample" not in engines.log


def test_a_run_without_held_out_data_is_measured_and_keeps_its_best(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = ("--eval.best", "eval/pope/accuracy", "--eval.patience", "2", "--run.steps", "9", "--run.eval_every", "1")
    config = _config(model, tmp_path, "sft", *best, "--run.keep_checkpoints", "1")
    with run_folder(tmp_path) as folder:
        _train(config, tmp_path, folder, monkeypatch, held_out=False)
        rows = metric_rows(folder)
        assert [row["step"] for row in rows] == [0, 1, 2, 3]
        assert all("eval/pope/accuracy" in row and "eval/accuracy" not in row for row in rows)
        assert json.loads(folder.evaluation_file(3).read_text())["eval/pope/accuracy"] == 0.0
        assert [path.name for path in folder.complete_checkpoints()] == ["step_000001", "step_000003"]
