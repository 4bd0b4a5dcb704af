"""The option list is frozen: adding, renaming or removing an option shows up as a change of options.txt."""

from pathlib import Path

from algorithms.registry import ALGORITHMS
from orchestrator.config import load_config, option_names


def test_option_list_is_the_recorded_one() -> None:
    recorded = Path(__file__).with_name("options.txt").read_text().splitlines()
    assert option_names() == recorded


def test_configured_defaults_are_the_registered_algorithms() -> None:
    for name in ("stable_reinforce", "reinforce_pp"):
        configured, registered = load_config(["--algo", name])[0].algorithm, ALGORITHMS[name]
        assert configured.adv_filter == registered.adv_filter
        assert configured.preclip_min == registered.preclip_min
        assert configured.preclip_max == registered.preclip_max
        assert configured.aggregation == registered.aggregation
