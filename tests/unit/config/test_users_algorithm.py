"""An algorithm in one file outside the repository: ``--algo FILE.py:NAME``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config import TrainConfig, load_config, resolved_json
from orchestrator.config.plugins import plugin_modules
from orchestrator.errors import RefusedInput
from orchestrator.run.identity import Identity, differences, option_identity, refuse_another
from tests.users_algorithm import TOY, write_toy


def _load(*argv: str) -> TrainConfig:
    return load_config(argv)[0]


def _refusal(*argv: str) -> str:
    with pytest.raises(RefusedInput) as caught:
        load_config(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _identity(config: TrainConfig) -> Identity:
    return option_identity(settled_dtype(config, PlacementPlan("colocated", (), ())))


def _power(config: TrainConfig) -> object:
    return json.loads(resolved_json(config))["toy"]["power"]


def test_its_options_are_set_by_its_defaults_its_profiles_files_and_flags(tmp_path: Path) -> None:
    toy = write_toy(tmp_path)
    file = tmp_path / "a.toml"
    file.write_text(f"algo = {toy!r}\n[toy]\npower = 4.0\n")
    own = ("--model.path", "m", "--data.path", "d")
    assert (_power(_load("--algo", toy, *own)), _load("--algo", toy, *own).optimizer.lr) == (2.0, 3e-4)
    assert _load("--algo", toy).optimizer.lr == 2e-3, "the embedded task knows better"
    assert _power(_load("--algo", toy, "--profile", "steep")) == 3.0
    assert _power(_load("--config", str(file), "--profile", "steep")) == 4.0
    assert _power(_load("--config", str(file), "--toy.power", "5")) == 5.0
    assert (
        _refusal("--algo", toy, "--toy.power", "0") == "toy.power = 0.0 on the command line: must be greater than 0.0"
    )
    assert _refusal("--algo", toy, "--toy.powr", "1") == "unknown flag --toy.powr; did you mean toy.power?"
    assert _refusal("--algo", "dpo", "--toy.power", "1") == "unknown flag --toy.power"


def test_the_run_learns_by_it_with_its_settings(tmp_path: Path) -> None:
    config = _load("--algo", write_toy(tmp_path), "--toy.power", "5")
    assert type(config.learner).__name__ == "Toy"
    assert config.learner.settings["toy"].model_dump() == {"power": 5.0}
    assert config.data_kind == "preferences" and config.reference_workers == 1
    assert config.run.dir == "runs/toy.Toy"
    assert _refusal("--algo", config.algo, "--toy.power", "7") == "toy.power = 7 is odd and above 6"


def test_help_shows_its_options_and_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_config(["--algo", write_toy(tmp_path), "--help"])
    shown = capsys.readouterr().out
    assert "--toy.power" in shown and "How steep the loss is." in shown
    assert "0.0003" in shown


@pytest.mark.parametrize(
    ("text", "old", "new", "told"),
    [
        ("none.py:Toy", "", "", "algo = 'none.py:Toy': 'none.py' cannot be read (No such file or directory)"),
        ("toy.py", "", "", "algo = 'toy.py': expected FILE.py:NAME"),
        ("toy.py:Toys", "", "", "algo = 'toy.py:Toys': 'toy.py' has nothing of the name 'Toys'"),
        ("toy.py:helper", "", "", "algo = 'toy.py:helper' is no class derived from algorithms.algorithm.Algorithm"),
        ("toy.py:Toy", '"toy": T', '"run": T', "algo = 'toy.py:Toy': the name of its section 'run' is taken"),
        ("toy.py:Toy", '"toy": T', '"mm_dpo": T', "algo = 'toy.py:Toy': the name of its section 'mm_dpo' is taken"),
        ("toy.py:Toy", '"toy": T', '"learner": T', "algo = 'toy.py:Toy': the name of its section 'learner' is taken"),
        ("toy.py:Toy", '"toy": T', '"my toy": T', "its section 'my toy' has a name that no option can have"),
        ("toy.py:Toy", "default=2.0, ", "", "algorithms.settings.Section whose options all have a default"),
        (
            "toy.py:Toy",
            '"optimizer.lr"',
            '"optimizer.rl"',
            "unknown option 'optimizer.rl' in algo = 'toy.py:Toy'; did you mean optimizer.lr?",
        ),
    ],
)
def test_one_that_cannot_be_used_is_refused_in_one_sentence(
    text: str, old: str, new: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert old in TOY
    Path("toy.py").write_text(TOY.replace(old, new))
    assert told in _refusal("--algo", text)


def test_a_resume_with_an_edited_file_is_refused_by_name_and_a_moved_one_is_not(tmp_path: Path) -> None:
    toy = write_toy(tmp_path)
    before, config = _identity(_load("--algo", toy)), _load("--algo", toy)
    (tmp_path / "moved").mkdir()
    assert differences(before, _identity(_load("--algo", write_toy(tmp_path / "moved")))) == []
    write_toy(tmp_path, old="x * 1", new="x * 2")
    assert differences(before, _identity(config)) == [], "a run goes on with what it has loaded"
    after = _identity(_load("--algo", toy))
    old, new = (identity["algo"]["file"][:8] for identity in (before, after))
    with pytest.raises(RefusedInput) as refused:
        refuse_another("step_000005", before, after)
    assert str(refused.value).startswith(
        f"run.resume: checkpoint step_000005 has algo = {toy!r} (file {old}), this run has {toy!r} (file {new});"
    )


def test_another_process_learns_by_it_without_the_file(tmp_path: Path) -> None:
    objective = _load("--algo", write_toy(tmp_path)).learner.objective()
    for module in plugin_modules():
        cloudpickle.register_pickle_by_value(module)
    sent = tmp_path / "objective"
    sent.write_bytes(cloudpickle.dumps(objective))  # pyright: ignore[reportPrivateImportUsage]
    (tmp_path / "toy.py").unlink()
    code = (
        "import pickle, sys, torch\n"
        "kept = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(kept.algorithm.pair_loss(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([1.0])).item())"
    )
    done = subprocess.run([sys.executable, "-c", code, sent], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 1.0  # |1 - 1 (3 - 1)| to the power of 2
