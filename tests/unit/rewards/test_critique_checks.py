"""A model that could not be asked for critiques is refused with a sentence, before any process is started."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.config import TrainConfig, load_config
from orchestrator.data.learnable import Learnable
from orchestrator.data.records import Instruction, Response
from orchestrator.data.stores import OfflineData
from orchestrator.errors import RefusedInput
from orchestrator.rewards.critique_service import check_critique_models, check_online_critiques
from tests.tiny_models import TINY_MODELS
from tests.unit.data.store_rows import written
from workers.models.reward_head import RewardHead, save_reward_head
from workers.types import Prompt

_CANNOT = "its chat template cannot go on behind a response with the request for a critique"
_SYSTEM_ONCE = (
    "{% for m in messages %}{% if loop.index0 and m.role == 'system' %}{{ raise_exception('late') }}{% endif %}"
    "{% if m.role == 'assistant' and messages[0].role == 'system' %}{{ raise_exception('no answers') }}{% endif %}"
    "{{ m.role }} : {{ m.content[0].text }} {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
_ROLES = (("user",), ("system", "user"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {name: TINY_MODELS[name](root / name) for name in ("llava", "instructblip")}
    made["system"] = TINY_MODELS["llava"](root / "system")
    (made["system"] / "chat_template.jinja").write_text(_SYSTEM_ONCE)
    return made


def _turns(*roles: str) -> tuple[dict[str, Any], ...]:
    return tuple({"role": role, "content": [{"type": "text", "text": f"{role} ?"}]} for role in roles)


def _data(folder: Path, *conversations: tuple[dict[str, Any], ...]) -> OfflineData:
    said = (Response(text="one", rank=1, critique="good"), Response(text="two", rank=2, critique="bad"))
    rows = [
        Instruction(uid=f"a-{n}", split="train", messages=turns, media=(), responses=said)
        for n, turns in enumerate(conversations)
    ]
    store = written(folder / "store", rows, group_rows=1)
    return OfflineData(
        train=store, held_out_store=store, held_out_splits=("held_out",), learnable=Learnable(), warning=None
    )


def _config(algo: str, model: Path, *argv: str) -> TrainConfig:
    flags = ["--algo", algo, "--model.path", str(model), "--data.path", "d", "--data.format", "mm_rlhf"]
    return load_config([*flags, *argv])[0]


def _refusal(config: TrainConfig, data: OfflineData) -> str:
    with pytest.raises(RefusedInput) as refusal:
        check_critique_models(config, data)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("algo", ["critique_rm", "mm_dpo"])
def test_a_model_without_turns_is_refused(algo: str, folders: dict[str, Path], tmp_path: Path) -> None:
    told = _refusal(_config(algo, folders["instructblip"]), _data(tmp_path, _turns("user")))
    why = "instructblip has no chat template: it answers one question and no more"
    assert told == f"model.path {str(folders['instructblip'])!r}: {why}"


def test_a_template_is_tried_on_every_kind_of_conversation(folders: dict[str, Path], tmp_path: Path) -> None:
    config = _config("critique_rm", folders["system"])
    check_critique_models(config, _data(tmp_path / "one", *[_turns("user")] * 3))
    rows = [*[_turns("user")] * 3, _turns("system", "user"), _turns("user", "assistant", "user")]
    told = _refusal(config, _data(tmp_path / "two", *rows))
    assert told == f"model.path {str(folders['system'])!r}: {_CANNOT}: no answers"


def test_a_run_that_writes_no_critiques_is_none_of_this(folders: dict[str, Path], tmp_path: Path) -> None:
    data = _data(tmp_path, _turns("user"))
    check_critique_models(_config("dpo", folders["instructblip"]), data)
    for mode in ("precomputed_factor", "fixed", "batch_implicit"):
        check_critique_models(_config("mm_dpo", folders["instructblip"], "--mm_dpo.beta_mode", mode), data)


def test_the_model_that_is_given_is_the_one_that_is_tried(folders: dict[str, Path], tmp_path: Path) -> None:
    data, given = _data(tmp_path, _turns("user")), folders["llava"]
    config = _config("mm_dpo", folders["instructblip"], "--reward.critique.path", str(given))
    assert f"reward.critique.path: {str(given)!r} is no critique reward model" in _refusal(config, data)
    head = dict(RewardHead("linear", 64).named_parameters())
    save_reward_head("linear", {name: p.detach() for name, p in head.items()}, given, request="why ?")
    check_critique_models(config, data)
    save_reward_head("linear", {"weight": torch.zeros(1, 64)}, folders["system"], request="why ?")
    config = _config("mm_dpo", given, "--reward.critique.path", str(folders["system"]))
    told = _refusal(config, _data(tmp_path / "system", _turns("system", "user")))
    assert told == f"reward.critique.path {str(folders['system'])!r}: {_CANNOT}: no answers"


def test_an_adapter_alone_is_no_model_for_the_workers(folders: dict[str, Path], tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    save_reward_head("linear", {"weight": torch.zeros(1, 64)}, adapter, request="why ?")
    config = _config("mm_dpo", folders["llava"], "--reward.critique.path", str(adapter))
    told = _refusal(config, _data(tmp_path, _turns("user")))
    assert told.endswith("has no config.json; an adapter becomes a model by python -m orchestrator.export")


def test_a_critique_model_that_cannot_be_asked_about_the_prompts_of_an_online_run_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    critique_model = TINY_MODELS["llava"](tmp_path / "critique_model")
    (critique_model / "chat_template.jinja").write_text(_SYSTEM_ONCE)
    save_reward_head("linear", {"weight": torch.zeros(1, 64)}, critique_model, request="why ?")
    flags = ["--model.path", str(folders["llava"]), "--data.path", "d", "--reward.critique.path", str(critique_model)]
    config = load_config(["--algo", "stable_reinforce", *flags, "--reward.critique.weight", "0.5"])[0]
    prompts = [Prompt(uid=f"a-{n}", messages=_turns(*roles), media=()) for n, roles in enumerate(_ROLES)]
    check_online_critiques(config, prompts[:1])
    with pytest.raises(RefusedInput, match=rf"^reward.critique.path '{critique_model}': {_CANNOT}: no answers$"):
        check_online_critiques(config, prompts)
