"""Which engine `auto` is: vLLM where it is installed and knows the architecture."""

import json
from pathlib import Path

import pytest

from orchestrator.cluster.choices import engine_kind
from orchestrator.config import load_config


@pytest.mark.parametrize(("model_type", "engine"), [("internvl", "vllm"), ("instructblip", "transformers")])
def test_auto_is_transformers_where_vllm_does_not_serve_the_model(
    model_type: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    config, *_ = load_config(["--algo", "stable_reinforce", "--model.path", str(tmp_path)])
    assert engine_kind(config) == engine
    # A critique reward model may be of another architecture than the policy.
    assert engine_kind(load_config(["--algo", "stable_reinforce"])[0], str(tmp_path)) == engine


def test_auto_is_transformers_where_vllm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert engine_kind(load_config(["--algo", "stable_reinforce"])[0]) == "transformers"
