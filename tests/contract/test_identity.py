"""What a resumed run may have otherwise: decided for every option, and held for every algorithm.

``identity.txt`` is the decision: ``fixed`` options are the run's identity, ``free`` ones may change, ``longer`` may
grow, ``content`` is a path that may change and what lies there not, ``presence`` an address that may change but not
come or go. The walk changes each option of each algorithm's run and asks for the checkpoint.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from algorithms.registry import ALGORITHMS
from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config import TrainConfig, load_config, option_names
from orchestrator.config.benchmarks import EvalBenchmark
from orchestrator.errors import RefusedInput
from orchestrator.run.checkpoint import find_checkpoint
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import Identity, option_identity, rule_of, run_identity, settled
from orchestrator.tasks.digits_model import build_digits_model
from tests.checkpoints import leave_checkpoint
from tests.contract.other_values import other_values, value_of, with_value

_LINES = [line.split() for line in Path(__file__).with_name("identity.txt").read_text().splitlines()]
_RECORDED: dict[str, str] = dict(_LINES)
_PLAN = PlacementPlan("colocated", (), ())
"""Without a GPU."""
_FLAGS: dict[str, tuple[str, ...]] = {
    "stable_reinforce": ("--reward.critique.weight", "1", "--reward.critique.path", "<model>"),
    "reinforce_pp": ("--reward.url", "http://a", "--algorithm.kl_coef", "0.1"),
    "distill": ("--distill.teacher_path", "<model>"),
    "dpo": ("--data.eval_path", "held_out.jsonl"),
    "scalar_rm": ("--model.lora_rank", "8"),
    "sft": ("--data.eval_path", "held_out.jsonl", "--model.freeze", "vision"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("identity") / "model", seed=0)


def _config(algo: str, model: Path, *flags: str) -> TrainConfig:
    own = [str(model) if flag == "<model>" else flag for flag in _FLAGS.get(algo, ())]
    argv = ["--algo", algo, "--model.path", str(model), "--data.path", "rows.jsonl", *own, *flags]
    return settled_dtype(load_config(argv)[0], _PLAN)


def _identity(config: TrainConfig, *, rows: str = "r" * 64, held_out: str = "h" * 64) -> Identity:
    return run_identity(config, rows=rows, held_out=None if config.data.eval_path is None else held_out)


def _saved(root: Path, identity: Identity, *, step: int = 5) -> RunFolder:
    """A run folder with one complete checkpoint."""
    leave_checkpoint(root, identity, step=step)
    return RunFolder(root)


def _refusal(folder: RunFolder, config: TrainConfig, identity: Identity) -> str:
    with pytest.raises(RefusedInput) as refusal:
        find_checkpoint(folder, config, identity)
    assert "\n" not in str(refusal.value)
    (whole,) = refusal.value.args  # what is shown leaves out the middle of a long sentence, as long as paths here are
    return whole


def test_every_option_is_decided() -> None:
    assert [name for name, _ in _LINES] == option_names()
    assert {name: rule_of(name) for name in option_names()} == _RECORDED
    assert rule_of("data.an_option_of_tomorrow") == "fixed"


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_change_of_any_option_is_refused_by_name_or_declared(algo: str, model: Path, tmp_path: Path) -> None:
    config = _config(algo, model)
    before = _identity(config)
    folder = _saved(tmp_path, before)
    assert find_checkpoint(folder, config, before) is not None
    for name in option_names():
        for value in other_values(config, name) if _RECORDED[name] in ("fixed", "free") else ():
            changed = settled_dtype(with_value(config, name, value), _PLAN)
            if _RECORDED[name] == "free":
                # ``must``, so that a resume that is told never to happen does not pass for one that did.
                assert find_checkpoint(folder, with_value(changed, "run.resume", "must"), _identity(changed)), name
            elif value == "auto" or option_identity(changed).get(name) == before[name]:
                assert name in ("model.dtype", "rollout.engine"), f"{name}: a change to {value!r} went unseen"
            else:
                old, new = before[name], json.loads(json.dumps(value))
                told = f"run.resume: checkpoint step_000005 has {name} = {old!r}, this run has {new!r}"
                said = _refusal(folder, changed, _identity(changed))
                assert said.startswith((f"{told}; use another run.dir", f"{told} (other too: ")), name


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_steps_may_grow_and_not_shrink(algo: str, model: Path, tmp_path: Path) -> None:
    config = _config(algo, model, "--run.steps", "20", *_CRITIC_STEPS.get(algo, ()))
    folder = _saved(tmp_path, _identity(config))
    longer, shorter = (with_value(config, "run.steps", steps) for steps in (21, 19))
    assert find_checkpoint(folder, longer, _identity(longer))
    assert "has run.steps = 20, this run has 19;" in _refusal(folder, shorter, _identity(shorter))


_CRITIC_STEPS = {"mm_dpo": ("--mm_dpo.critique_rm_steps", "9")}


def test_a_longer_mm_dpo_says_how_long_its_critique_reward_model_learned(model: Path, tmp_path: Path) -> None:
    config = _config("mm_dpo", model, "--run.steps", "20")
    folder = _saved(tmp_path, _identity(config))
    longer = with_value(config, "run.steps", 30)
    assert "mm_dpo.critique_rm_steps = 20, this run has 30;" in _refusal(folder, longer, _identity(longer))
    longer = with_value(longer, "mm_dpo.critique_rm_steps", 20)
    assert find_checkpoint(folder, longer, _identity(longer))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_another_model_is_refused_and_the_same_elsewhere_is_not(algo: str, model: Path, tmp_path: Path) -> None:
    config = _config(algo, model)
    folder = _saved(tmp_path / "run", _identity(config))
    moved = shutil.copytree(model, tmp_path / "moved")
    elsewhere = with_value(config, "model.path", str(moved))
    assert find_checkpoint(folder, elsewhere, _identity(elsewhere))
    for file, part in (("model.safetensors", "weights"), ("config.json", "config"), ("tokenizer.json", "tokenizer")):
        kept = (moved / file).read_bytes()
        (moved / file).write_bytes(kept[:-1] + b" ")
        said = _refusal(folder, elsewhere, _identity(elsewhere))
        assert f"has model.path = {str(model)!r} ({part} " in said
        assert f"this run has {str(moved)!r} ({part} " in said
        (moved / file).write_bytes(kept)


def test_other_weights_under_the_same_path_are_another_model(model: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(model, tmp_path / "mine")
    config = _config("reinforce_pp", mine)
    folder = _saved(tmp_path / "run", _identity(config))
    shutil.rmtree(mine)
    build_digits_model(mine, seed=1)
    said = _refusal(folder, config, _identity(config))
    assert said.count(f"{str(mine)!r} (weights ") == 2


def test_the_critique_reward_model_behind_rewards_is_part_of_the_run(model: Path, tmp_path: Path) -> None:
    critique_model = shutil.copytree(model, tmp_path / "critique_model")
    config = with_value(_config("stable_reinforce", model), "reward.critique.path", str(critique_model))
    folder = _saved(tmp_path / "run", _identity(config))
    elsewhere = with_value(config, "reward.critique.path", str(model))
    assert find_checkpoint(folder, elsewhere, _identity(elsewhere))
    (critique_model / "reward_head").mkdir()
    (critique_model / "reward_head" / "config.json").write_text("{}")
    assert "has reward.critique.path = " in _refusal(folder, config, _identity(config))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_data_may_move_and_not_change(algo: str, model: Path, tmp_path: Path) -> None:
    config = _config(algo, model, "--data.eval_path", "held_out.jsonl")
    folder = _saved(tmp_path, _identity(config))
    for name, other in (("data.path", {"rows": "x" * 64}), ("data.eval_path", {"held_out": "x" * 64})):
        moved = with_value(config, name, "moved/to")
        assert find_checkpoint(folder, moved, _identity(moved))
        said = _refusal(folder, moved, _identity(moved, **other))
        assert f"has {name} = {value_of(config, name)!r} (rows " in said
        assert "this run has 'moved/to' (rows xxxxxxxx)" in said
    none = with_value(config, "data.eval_path", None)
    assert "has data.eval_path = " in _refusal(folder, none, _identity(none))


def test_the_address_of_a_service_may_change_but_not_whether_there_is_one(model: Path, tmp_path: Path) -> None:
    config = _config("reinforce_pp", model, "--reward.url", "http://a.example")
    identity = _identity(config)
    assert "a.example" not in json.dumps(identity)
    folder = _saved(tmp_path, identity)
    other = with_value(config, "reward.url", "http://b")
    assert find_checkpoint(folder, other, _identity(other))
    own = with_value(config, "reward.url", None)
    assert "has reward.url = 'a service that was running', this run has None;" in _refusal(folder, own, _identity(own))


def test_all_that_differs_is_named_as_far_as_it_can_be_read(model: Path, tmp_path: Path) -> None:
    config = _config("dpo", model)
    folder = _saved(tmp_path, _identity(config))
    two = with_value(with_value(config, "optimizer.lr", 2e-6), "run.seed", 9)
    assert _refusal(folder, two, _identity(two)) == (
        "run.resume: checkpoint step_000005 has run.seed = 0, this run has 9 (other too: optimizer.lr); "
        "use another run.dir or run.resume = 'never'"
    )
    many = two
    for name in option_names():
        if name.startswith("algorithm."):
            many = with_value(many, name, other_values(config, name)[0])
    said = _refusal(folder, many, _identity(many))
    assert re.search(r"\(other too: (\S+, ){5}and \d+ more\); use another run\.dir", said), said


@pytest.mark.parametrize("manifest", [{}, {"identity": None}, {"data_fingerprint": "f", "algo": "dpo", "num_ranks": 1}])
def test_a_checkpoint_that_does_not_say_is_refused_by_name(
    manifest: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    config = _config("dpo", model)
    folder = _saved(tmp_path, {})
    (folder.checkpoint(5) / "manifest.json").write_text(json.dumps({"step": 5, **manifest}))
    assert _refusal(folder, config, _identity(config)).startswith(
        "run.resume: checkpoint step_000005 was written by an older version"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_checkpoint_with_a_broken_manifest_is_refused_by_name(text: str, model: Path, tmp_path: Path) -> None:
    config = _config("dpo", model)
    folder = _saved(tmp_path, {})
    (folder.checkpoint(5) / "manifest.json").write_text(text)
    assert "step_000005 has a manifest.json that is no JSON object;" in _refusal(folder, config, _identity(config))


def test_a_checkpoint_older_or_newer_than_an_option_is_refused(model: Path, tmp_path: Path) -> None:
    config = _config("dpo", model)
    identity = _identity(config)
    less = {name: value for name, value in identity.items() if name != "preference.beta"}
    said = _refusal(_saved(tmp_path / "old", less), config, identity)
    assert "has preference.beta = no such option, this run has 0.1;" in said
    said = _refusal(_saved(tmp_path / "new", {**identity, "preference.new": 3}), config, identity)
    assert "has preference.new = 3, this run has nothing;" in said
    # One that may change anyhow stands in nobody's way.
    less = {name: value for name, value in identity.items() if name != "run.eval_every"}
    assert find_checkpoint(_saved(tmp_path / "free", less), config, identity)


def test_a_run_that_starts_afresh_asks_nothing_of_what_lies_there(model: Path, tmp_path: Path) -> None:
    config = _config("dpo", model, "--run.resume", "never")
    assert find_checkpoint(_saved(tmp_path, {}), config, _identity(config)) is None


def test_an_unsettled_number_format_is_no_identity(model: Path) -> None:
    config = load_config(["--algo", "dpo", "--model.path", str(model), "--data.path", "rows"])[0]
    with pytest.raises(ValueError, match=r"model\.dtype = 'auto'"):
        option_identity(config)


def test_the_best_checkpoint_is_found_on_the_same_rows(model: Path) -> None:
    """Other tables measure a resumed run, but for the one by whose figure its checkpoints are ranked."""

    def identity(best: str | None, rows: int) -> Identity:
        config = with_value(_config("grpo", model), "eval.best", best)
        table = EvalBenchmark(name="pope", path="pope.jsonl", rows=rows)
        told = run_identity(with_value(config, "eval.benchmark", (table,)), rows="r", held_out=None)
        return settled(told)

    assert identity(None, 20) == identity(None, 200)
    assert identity("eval/accuracy", 20) == identity("eval/accuracy", 200)
    assert identity("eval/pope/accuracy", 20) != identity("eval/pope/accuracy", 200)
