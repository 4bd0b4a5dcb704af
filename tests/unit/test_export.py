"""The export command copies whole checkpoints, refuses everything else in one sentence, and leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.export import main
from orchestrator.tasks.digits_model import build_digits_model
from workers.models.reward_head import save_reward_head


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("export") / "model", seed=0)


def _checkpoint(run: Path, step: int, model: Path | None, *, complete: bool = True) -> Path:
    checkpoint = run / "checkpoints" / f"step_{step:06d}"
    (checkpoint / "policy").mkdir(parents=True)
    for file in model.iterdir() if model is not None else ():
        (checkpoint / "policy" / file.name).write_bytes(file.read_bytes())
    (checkpoint / "policy" / "mark").write_text(str(step))
    if complete:
        (checkpoint / "manifest.json").write_text("{}")
    return checkpoint


def _adapter(run: Path, **config: object) -> None:
    policy = _checkpoint(run, 1, None) / "policy"
    (policy / "adapter_config.json").write_text(json.dumps(config))


def test_the_newest_complete_checkpoint_of_a_run_is_copied(model: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "models" / "mine"
    for step in (1, 2, 3):
        _checkpoint(run, step, model, complete=step < 3)
    assert main([str(run), str(out)]) == 0
    assert (out / "mark").read_text() == "2"
    assert (out / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_a_reward_model_is_exported_for_others_to_serve_and_its_checkpoint_stays(model: Path, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "run", 1, model)
    save_reward_head("linear", {"weight": torch.ones(1, 128)}, checkpoint / "policy", request=None)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    assert load_file(tmp_path / "out" / "score.safetensors").keys() == {"language_model.score.weight"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == [
        "Qwen2_5_VLForSequenceClassification"
    ]
    assert (tmp_path / "out" / "reward_head" / "model.safetensors").is_file()
    assert not (checkpoint / "policy" / "score.safetensors").exists()


def test_a_checkpoint_may_be_named_itself(model: Path, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "run", 7, model)
    assert main([str(checkpoint), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "mark").read_text() == "7"


_BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda run: None, "is not a folder"),
    "any folder": (lambda run: run.mkdir(), "is neither a run folder nor a complete checkpoint"),
    "no checkpoint yet": (lambda run: (run / "checkpoints").mkdir(parents=True), "has no complete checkpoint"),
    "torn checkpoint": (lambda run: _checkpoint(run, 1, None, complete=False), "has no complete checkpoint"),
    "no model in it": (lambda run: _checkpoint(run, 1, None), "has no config.json"),
    "torn adapter": (lambda run: _adapter(run), "does not describe a LoRA adapter and its base model"),
    "base is gone": (
        lambda run: _adapter(run, peft_type="LORA", base_model_name_or_path="no/such/model"),
        "cannot be merged into its base model: 'no/such/model' is not a folder",
    ),
}


@pytest.mark.parametrize("name", _BAD)
def test_what_cannot_be_exported_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = _BAD[name]
    spoil(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("refused: ") and captured.err.count("\n") == 1
    assert expected in captured.err
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_an_adapter_whose_weights_are_gone_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"r": 2, "lora_alpha": 4, "target_modules": r"model\.language_model\.layers\.\d+\.self_attn\.q_proj"}
    _adapter(tmp_path / "run", peft_type="LORA", base_model_name_or_path=str(model), **config)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "has no adapter_model.safetensors" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_exists_is_not_written_to(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _checkpoint(tmp_path / "run", 1, model)
    (tmp_path / "out").mkdir()
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
