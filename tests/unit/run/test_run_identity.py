"""A run folder that holds another run: refused from the command line, before anything in it is touched."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.placement import PlacementPlan, WorkerPlacement
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.specs import model_spec, policy_spec
from orchestrator.config import TrainConfig, load_config
from orchestrator.config.options import config_type
from orchestrator.data.prompts import read_data
from orchestrator.data.side_tables import table_fingerprint
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline import offline as offline_run
from orchestrator.pipeline import online as online_run
from orchestrator.pipeline.stages import stages_of
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import Identity, option_identity
from orchestrator.run.manifest import DataCounts
from orchestrator.run.start import started_run
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from orchestrator.training.answering import online_identity
from orchestrator.training.offline import offline_identity
from tests.checkpoints import leave_checkpoint
from tests.contract.bad_inputs import valid_case
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain
from workers.models.digests import MODEL_PARTS, model_digests
from workers.models.folder import REWARD_HEAD_FOLDER

_COUNTS = DataCounts(num_train=9, num_bad_rows=0, num_held_out=0, data_counts={})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("model") / "model", seed=0)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("the cluster was started")

    for room in (offline_run, online_run):
        monkeypatch.setattr(room, "ray_cluster", started)


def _config(argv: list[str]) -> TrainConfig:
    config = load_config(argv)[0]
    return settled_dtype(config, plan_run(config)[1])


def _goes_on(argv: list[str]) -> None:
    with pytest.raises(AssertionError, match="the cluster was started"):
        main(argv)


def _refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    return told.err


def _leave_checkpoint(root: Path, identity: Identity, *, step: int = 1) -> Path:
    return leave_checkpoint(root, identity, step=step)


def _contents(root: Path) -> Mapping[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file() and f.name != ".lock"}


def test_a_run_given_another_model_never_goes_on_with_the_first_ones_checkpoint(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = valid_case(tmp_path, model).argv()
    _goes_on(argv)
    config = _config(argv)
    _leave_checkpoint(tmp_path / "run", online_identity(config, read_data(config)))
    before = _contents(tmp_path / "run")
    _goes_on(argv)

    other = build_digits_model(tmp_path / "other", seed=1)
    said = _refused([*argv, "--model.path", str(other)], capsys)
    told = f"refused: run.resume: checkpoint step_000001 has model.path = {str(model)!r} (weights "
    assert said.startswith(told[:90]) and "/other' (weights " in said
    said = _refused([*argv, "--optimizer.lr", "2e-06", "--run.steps", "2000"], capsys)
    assert "has optimizer.lr = 1e-06, this run has 2e-06; use another run.dir or run.resume = 'never'" in said
    assert "has run.steps = 1000, this run has 10;" in _refused([*argv, "--run.steps", "10"], capsys)
    assert _contents(tmp_path / "run") == before, "a refusal leaves everything as it was"

    _goes_on([*argv, "--run.steps", "2000", "--run.checkpoint_every", "7", "--rollout.timeout_s", "9"])
    _goes_on([*argv, "--model.path", str(other), "--run.resume", "never"])


def test_another_row_in_the_data_is_another_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = valid_case(tmp_path, model)
    config = _config(case.argv())
    _leave_checkpoint(tmp_path / "run", online_identity(config, read_data(config)))
    case.row["answer"] = ["<answer>2</answer>"]
    assert "has data.path = " in _refused(case.argv(), capsys)
    held_out = str(tmp_path / "data" / "held_out.jsonl")
    shutil.copy(case.flags["--data.path"], held_out)
    case.row["answer"] = ["<answer>1</answer>"]
    assert "has data.eval_path = None, this run has " in _refused([*case.argv(), "--data.eval_path", held_out], capsys)


def test_an_offline_run_goes_on_from_its_own_store_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*words: str) -> None:
        write_jsonl(tmp_path / "rows.jsonl", *[plain(prompt=w, chosen="one", rejected="two") for w in words])

    rows("a", "b")
    root = tmp_path / "run"
    argv = ["--algo", "dpo", "--model.path", str(model), "--data.path", str(tmp_path / "rows.jsonl")]
    argv += ["--data.format", "plain_dpo", "--run.dir", str(root)]
    _goes_on(argv)
    config, folder = _config(argv), RunFolder(root)
    _leave_checkpoint(root, offline_identity(config, open_data(config, folder), {}))
    before = _contents(root)
    _goes_on(argv)
    for name, old, new in (
        ("preference.beta", "0.1", "0.2"),
        ("run.seed", "0", "1"),
        ("data.video_frames", "8", "9"),
        ("reference.mode", "'worker'", "'precomputed'"),
    ):
        said = _refused([*argv, f"--{name}", new.strip("'")], capsys)
        assert f"has {name} = {old}, this run has {new};" in said
    assert _contents(root) == before

    rows("a", "b", "c")
    assert "imported from another file" in _refused(argv, capsys)
    _goes_on([*argv, "--run.resume", "never"])
    assert open_data(config, folder).train.num_instructions("train") == 3


def test_an_import_under_other_settings_is_not_the_next_runs(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", plain(prompt="a", chosen="one", rejected="two"))
    argv = ["--algo", "dpo", "--model.path", str(model), "--data.path", str(tmp_path / "rows.jsonl")]
    argv += ["--data.format", "plain_dpo", "--run.dir", str(tmp_path / "run")]
    manifest = tmp_path / "run" / "store" / "manifest.json"
    _goes_on(argv)
    first = manifest.stat().st_ino, manifest.stat().st_mtime_ns
    _goes_on([*argv, "--optimizer.lr", "0.5"])
    assert (manifest.stat().st_ino, manifest.stat().st_mtime_ns) == first
    _goes_on([*argv, "--data.video_frames", "9"])
    assert manifest.stat().st_mtime_ns != first[1]


def test_the_embedded_run_goes_on_and_no_cold_start_of_another_is_taken_for_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--algo", "stable_reinforce", "--run.dir", str(tmp_path)]
    _goes_on(argv)
    started = json.loads((tmp_path / "config.json").read_text())
    config = config_type().model_validate_json(json.dumps(started))
    stage, data = online_run._cold_start_stage(config)
    done = _leave_checkpoint(tmp_path / "cold_start", online_identity(stage, data), step=stage.run.steps)
    other = config.model_copy(update={"run": config.run.model_copy(update={"seed": 1})})
    with pytest.raises(RefusedInput, match=r"checkpoint step_000220 has run\.seed = 0, this run has 1;"):
        online_run._refuse_other_runs(other, RunFolder(tmp_path), read_data(config), stages_of(load_config(argv)[0]))

    shutil.copytree(tmp_path / "task" / "model", done / "policy", dirs_exist_ok=True)
    begun = config.model_copy(update={"model": config.model.model_copy(update={"path": str(done / "policy")})})
    _leave_checkpoint(tmp_path, online_identity(begun, read_data(config)))
    _goes_on(argv)
    before = _contents(tmp_path / "task")
    assert "step_000001 has run.seed = 0, this run has 1;" in _refused([*argv, "--run.seed", "1"], capsys)
    assert _contents(tmp_path / "task") == before, "the task's files are still those of the run that lies there"


def _identity_of(model: Path, *flags: str) -> tuple[TrainConfig, Identity]:
    own = ["--algo", "dpo", "--model.path", str(model), "--data.path", "rows", "--run.steps", "20"]
    config = _config([*own, *flags])
    return config, option_identity(config)


def _start(root: Path, model: Path, *flags: str) -> dict[str, Any]:
    """Begin or continue a run; its manifest."""
    config, identity = _identity_of(model, *flags)
    (root / "rollouts").mkdir(parents=True, exist_ok=True)
    with started_run(config, RunFolder(root), identity=identity, counts=_COUNTS, figures=()):
        return json.loads((root / "manifest.json").read_text())


def test_the_manifest_tells_with_what_each_stretch_of_a_run_went_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _start(tmp_path, model)
    (segment,) = first["segments"]
    assert segment["from_step"] == 0 and segment["options"]["run.steps"] == 20 and segment["versions"]["torch"]
    assert "optimizer.lr" in first["identity"] and "run.steps" not in first["identity"]

    _leave_checkpoint(tmp_path, _identity_of(model)[1], step=5)
    assert _start(tmp_path, model)["segments"] == first["segments"], "nothing has changed"
    capsys.readouterr()
    longer = _start(tmp_path, model, "--run.steps", "30", "--run.eval_every", "3")
    assert longer["segments"] == [segment, {"from_step": 5, "options": {"run.steps": 30, "run.eval_every": 3}}]
    said = capsys.readouterr().out
    changed = "run.steps = 30 (was 20), run.eval_every = 3 (was 25)"
    assert f"continues after step 5 with {changed}; the cosine schedule now spans 30 steps" in said

    # Killed before its first checkpoint and gone on with otherwise: what came of it was cut off.
    again = _start(tmp_path, model, "--run.steps", "40")
    assert again["segments"] == [segment, {"from_step": 5, "options": {"run.steps": 40}}]
    assert _start(tmp_path, model, "--run.resume", "never")["segments"] == [segment]


def test_the_number_format_is_that_of_the_plan_and_not_of_the_driver(model: Path) -> None:
    worker = WorkerPlacement(role="policy", index=0, group="shared", bundle_indices=(0,), num_gpus=1.0, num_cpus=1.0)
    config = load_config(["--algo", "dpo", "--model.path", str(model), "--data.path", "rows"])[0]
    told = {}
    for dtype, workers in (("bfloat16", (worker,)), ("float32", ())):
        there = settled_dtype(config, PlacementPlan("colocated", (), workers))
        told[dtype] = table_fingerprint(there, "", str(model)).settings["model.dtype"]
        sent = (model_spec(there, str(model)).dtype, policy_spec(there, None).model.dtype)
        assert (there.model.dtype, option_identity(there)["model.dtype"], *sent) == (dtype,) * 4
        assert settled_dtype(there, PlacementPlan("colocated", (), ())) == there
    assert told == {"bfloat16": "bfloat16", "float32": "float32"}
    flash = config.model_copy(update={"model": config.model.model_copy(update={"attention": "flash_attention_2"})})
    with pytest.raises(RefusedInput, match="'flash_attention_2' needs GPUs"):
        settled_dtype(flash, PlacementPlan("colocated", (), ()))


def _append(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda f: _append(f / "model.safetensors"), "weights"),
        (lambda f: (f / "model-00002-of-00002.safetensors").write_bytes(b"0"), "weights"),
        (lambda f: (f / REWARD_HEAD_FOLDER / "model.safetensors").write_bytes(b"0"), "weights"),
        (lambda f: _append(f / "config.json"), "config"),
        (lambda f: (f / "generation_config.json").write_text("{}"), "config"),
        (lambda f: (f / REWARD_HEAD_FOLDER / "config.json").write_text("{}"), "config"),
        (lambda f: (f / "modeling_mine.py").write_text("pass"), "config"),
        (lambda f: _append(f / "tokenizer.json"), "tokenizer"),
        (lambda f: (f / "chat_template.jinja").write_text("x"), "tokenizer"),
        (lambda f: (f / "merges.txt").write_text("x"), "tokenizer"),
        (lambda f: (f / "preprocessor_config.json").write_text("{}"), "processor"),
        (lambda f: (f / "README.md").write_text("about"), None),
        (lambda f: (f / "LICENSE.txt").write_text("mine"), None),
        (lambda f: shutil.copytree(f, f / "runs" / "dpo" / "policy"), None),
    ],
)
def test_a_digest_sees_what_a_model_answers_with_and_nothing_else(
    change: Callable[[Path], object], part: str | None, model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / REWARD_HEAD_FOLDER).mkdir()
    before = model_digests(folder)
    assert before == model_digests(model), "the same bytes elsewhere"
    change(folder)
    after = model_digests(folder)
    assert [name for name in MODEL_PARTS if before[name] != after[name]] == ([] if part is None else [part])
