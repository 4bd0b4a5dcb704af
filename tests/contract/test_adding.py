"""Every snippet of docs/adding/ does what its page says."""

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.records import Sequence
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.roles import ROLES
from orchestrator.config import load_config
from orchestrator.config.judges import JUDGES
from remote_rm.app import create_app
from remote_rm.functions.pool import Bounds, FunctionPool
from remote_rm.functions.spec import function_specs
from remote_rm.judges.rules import RulesJudge
from remote_rm.parts import Part
from remote_rm.rulebooks import PARTS, STRICT
from remote_rm.schema import RewardItem
from remote_rm.scorers import SCORERS
from tests.contract.service import in_process
from tests.in_process import InProcessPool
from tests.pages import PAGES, command_of, snippet, snippets
from workers.models.adapters import ADAPTERS, adapter_for


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to run commands in, of which python imports too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("lengths", None)


@pytest.mark.parametrize("page", sorted(file.stem for file in PAGES.glob("*.md")))
def test_its_commands_do_what_they_are_said_to(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for language, name, text in snippets(page):
        if "." in name:
            Path(name).write_text(text)
        if language == "sh":
            for line in text.splitlines():
                assert command_of(line) == 0, (line, capsys.readouterr().err)
    told = capsys.readouterr().out
    expected = {
        "algorithm": ("--squared.target", "1.5", "completions on"),
        "data_format": ("it is one .", "which digit ?"),
        "stage": ("run 3 of 3, again: grpo in runs/judge/again, model.path from judge",),
    }
    assert all(word in told for word in expected.get(page, ()))
    assert not os.path.exists("runs")


def test_the_algorithms_learn(tmp_path: Path) -> None:
    import torch

    for file, kind in (("squared.py", "Squared"), ("median.py", "Median"), ("counted.py", "Counted")):
        (tmp_path / file).write_text(snippet("algorithm", file))
        learner: Any = load_config(["--algo", f"{file}:{kind}"])[0].learner
        learner.objective()
        if kind == "Median":
            scores, mask = torch.tensor([1.0, 0.0, 0.5, 4.0, 5.0, 9.0]), torch.ones(6, 2, dtype=torch.bool)
            advantages, _ = learner.advantages(scores, torch.tensor([0, 0, 0, 1, 1, 1]), mask * 0.0, mask)
            assert advantages[:, 0].tolist() == [0.5, -0.5, 0.0, -1.0, 0.0, 4.0]
        else:
            loss = learner.pair_loss(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([1.0]))
            assert loss.item() == pytest.approx(0.0 if kind == "Squared" else np.log1p(np.exp(-2.0)))


def test_the_functions_are_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(snippet("reward", "my.py"))
    (table,) = (text for language, name, text in snippets("reward") if language == "toml" and name != "judge")
    functions = tomllib.loads(table)["reward"]["functions"]
    item = {"id": "a", "prompt": "?", "response": "four 4", "label": "4.1", "group": "g"}

    async def scored() -> Any:
        pool = FunctionPool(function_specs(functions), Bounds(workers=1))
        async with in_process(create_app(RulesJudge(), None, functions=pool)) as client:
            body = {"request_id": "r", "items": [item, {**item, "id": "b", "response": "4 or 5 or 6"}]}
            return (await client.post("/v1/rewards", json=body)).json()

    reply = asyncio.run(scored())
    assert reply["weights"] == {"brief": 0.1, "shortest": 0.1, "number": 1.0}
    assert [one["parts"] for one in reply["items"]] == [
        {"brief": 0.96, "shortest": 1.0, "number": 1.0},
        {"brief": 0.9, "shortest": 0.0, "number": 0.0},
    ]


def test_what_is_built_in_is_listed() -> None:
    page = (PAGES / "reward.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)", page, re.MULTILINE)) == {*SCORERS, *JUDGES}


def test_the_rubric_is_one(tmp_path: Path) -> None:
    (tmp_path / "judge.toml").write_text(snippet("reward", "judge"))
    config, _ = load_config(["--algo", "grpo", "--config", str(tmp_path / "judge.toml")])
    assert [(c.part, c.weight) for c in config.reward.criteria] == [("judge_right", 2.0), ("judge_looks", 1.0)]
    assert (config.reward.rubric_weight, config.reward.judge_scale) == (0.5, (1, 5))


def test_the_part_is_in_the_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    exec(snippet("reward", "part"), made)
    part: Part = made["BREVITY"]
    monkeypatch.setitem(PARTS, "brevity", part)
    item = RewardItem(id="a", prompt="", response="one two", label="1")
    assert STRICT.rules()["brevity"](item) == 0.98
    parts = {"format": 1.0, "accuracy": 0.0, "consistency": None}
    assert STRICT.reward({**parts, "brevity": 0.98}) == pytest.approx(0.5 + 0.098)


def test_the_role_is_placed_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lengths.py").write_text(snippet("role", "lengths.py"))
    made: dict[str, Any] = {}
    exec(snippet("role", "record"), made)
    monkeypatch.setitem(ROLES, "lengths", made["LENGTHS"])
    plan = plan_run(load_config(["--algo", "dpo"])[0])[1]
    assert len(plan.workers_of("lengths")) == 2
    pool = InProcessPool(tokens_per_microbatch=99)
    pool.role("lengths").start(0.5)
    sequences = [
        Sequence(uid=str(n), sample_index=0, input_ids=np.zeros(n, np.int64), prompt_len=1, media=()) for n in (4, 9, 2)
    ]
    made |= {"pool": pool, "sequences": sequences}
    exec(snippet("role", "asked"), made)
    assert made["rewards"] == [2.0, 4.5, 1.0]


def test_the_model_is_known_by_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    exec(snippet("model", "record"), made)
    monkeypatch.setitem(ADAPTERS, "mine_vl", made["MINE"])
    adapter = adapter_for("mine_vl")
    names = ("model.tower.a.weight", "model.projector.b.weight", "lm_head.weight")
    assert [adapter.module_of(name) for name in names] == ["vision", "bridge", "language"]
    assert adapter.checkpoint_name(names[0]) == "tower.a.weight"
