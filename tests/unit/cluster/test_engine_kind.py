"""Which engine `auto` is: vLLM where it is installed and knows the architecture; what a family cannot do is refused."""

import json
from pathlib import Path

import pytest

from orchestrator.cluster.choices import engine_kind
from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.preflight import check_config


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


@pytest.mark.parametrize(
    ("model_type", "option", "told"),
    [
        ("gemma3", "--rollout.engine=vllm", "rollout.engine = 'vllm', but vLLM does not serve gemma3; use "),
        (
            "glm4v_moe",
            "--model.lora_rank=4",
            "model.lora_rank = 4, but peft puts adapters on the experts of glm4v_moe ",
        ),
    ],
)
def test_what_a_family_cannot_do_is_refused(model_type: str, option: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    config, *_ = load_config(["--algo", "stable_reinforce", "--model.path", str(tmp_path), *option.split("=")])
    with pytest.raises(RefusedInput) as caught:
        check_config(config)
    assert str(caught.value).startswith(told)


def test_auto_is_transformers_where_vllm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert engine_kind(load_config(["--algo", "stable_reinforce"])[0]) == "transformers"
