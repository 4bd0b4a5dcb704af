"""The option list is frozen: adding, renaming or removing an option shows up as a change of options.txt."""

from pathlib import Path

from algorithms.policy_gradient import AlgorithmSection
from algorithms.registry import ALGORITHMS, algorithm_class
from orchestrator.config import load_config, option_names


def test_option_list_is_the_recorded_one() -> None:
    recorded = Path(__file__).with_name("options.txt").read_text().splitlines()
    assert option_names() == recorded


def test_every_algorithm_sets_options_that_there_are() -> None:
    known = option_names()
    for name in ALGORITHMS:
        kind = algorithm_class(name)
        for layer in (kind.defaults, *kind.profiles.values()):
            assert set(layer) <= set(known), name


def test_configured_defaults_are_the_registered_algorithms() -> None:
    for name in ("stable_reinforce", "reinforce_pp"):
        defaults = algorithm_class(name).defaults
        own = {option.removeprefix("algorithm."): value for option, value in defaults.items()}
        assert load_config(["--algo", name])[0].section(AlgorithmSection) == AlgorithmSection(**own)
