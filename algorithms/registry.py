"""The algorithms by name, and where each is; nothing of theirs is loaded before it is asked for."""

from importlib import import_module

from algorithms.algorithm import Algorithm

ALGORITHMS: dict[str, str] = {
    "stable_reinforce": "algorithms.stable_reinforce:StableReinforce",
    "reinforce_pp": "algorithms.reinforce_pp:ReinforcePp",
    "reinforce_pp_baseline": "algorithms.reinforce_pp:ReinforcePpBaseline",
    "grpo": "algorithms.grpo:Grpo",
    "rloo": "algorithms.rloo:Rloo",
    "sft": "algorithms.sft:Sft",
}


def algorithm_class(name: str) -> type[Algorithm]:
    """The class that is registered under a name."""
    module, _, kind = ALGORITHMS[name].partition(":")
    found: type[Algorithm] = getattr(import_module(module), kind)
    return found
