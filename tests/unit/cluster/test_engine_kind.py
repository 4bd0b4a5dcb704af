"""What a family decides: the engine that `auto` is, and whether prompts are shared; what it cannot do is refused."""

import json
from pathlib import Path

import pytest

from orchestrator.cluster.choices import engine_kind, shares_prompts
from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.preflight import check_config
from workers.models.shared_prompt import NAMES


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


@pytest.mark.parametrize("attention", NAMES)
def test_prompts_are_shared_whatever_the_attention(attention: str, tmp_path: Path) -> None:
    shared, windowed, gemma = {"model_type": "qwen2_5_vl"}, {"sliding_window": 64}, {"model_type": "gemma3"}
    flags = ["--algo", "stable_reinforce", "--model.attention", attention]
    for described, mode, expected in (
        (shared, "shared_prompt", True),
        (shared, "pairs", False),
        (gemma, "shared_prompt", False),
        (shared | windowed, "shared_prompt", False),
    ):
        (tmp_path / "config.json").write_text(json.dumps(described))
        config, *_ = load_config([*flags, "--batching.mode", mode, "--model.path", str(tmp_path)])
        assert shares_prompts(config, str(tmp_path)) is expected


@pytest.mark.parametrize(
    ("model_type", "mode", "told"),
    [
        ("qwen2_5_vl", "pairs", "needs rows with shared prompts, which batching.mode = 'pairs' leaves out"),
        ("gemma3", "shared_prompt", "needs rows with shared prompts, which the gemma3 of model.path '"),
    ],
)
def test_flex_attention_is_refused_where_prompts_are_not_shared(
    model_type: str, mode: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    flags = ["--algo", "stable_reinforce", "--model.path", str(tmp_path), "--batching.mode", mode]
    check_config(load_config(flags)[0])
    with pytest.raises(RefusedInput) as caught:
        check_config(load_config([*flags, "--model.attention", "flex_attention"])[0])
    assert str(caught.value).startswith(f"model.attention = 'flex_attention' {told}")
