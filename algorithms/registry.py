"""The algorithms by name, and where each is; nothing of theirs is loaded before it is asked for.

One more is its file and a line here. One that is not in the repository is named on a command line as ``FILE.py:NAME``.
"""

from importlib import import_module

from algorithms.algorithm import Algorithm

ALGORITHMS: dict[str, str] = {
    "stable_reinforce": "algorithms.stable_reinforce:StableReinforce",
    "reinforce_pp": "algorithms.reinforce_pp:ReinforcePp",
    "reinforce_pp_baseline": "algorithms.reinforce_pp:ReinforcePpBaseline",
    "grpo": "algorithms.grpo:Grpo",
    "dr_grpo": "algorithms.dr_grpo:DrGrpo",
    "dapo": "algorithms.dapo:Dapo",
    "gdpo": "algorithms.gdpo:Gdpo",
    "gspo": "algorithms.gspo:Gspo",
    "cispo": "algorithms.cispo:Cispo",
    "sapo": "algorithms.sapo:Sapo",
    "rloo": "algorithms.rloo:Rloo",
    "ppo": "algorithms.ppo:Ppo",
    "fact_ppo": "algorithms.fact_ppo:FactPpo",
    "distill": "algorithms.distill:Distill",
    "sft": "algorithms.sft:Sft",
    "dpo": "algorithms.dpo:Dpo",
    "ipo": "algorithms.dpo:Ipo",
    "hinge": "algorithms.dpo:Hinge",
    "ddpo": "algorithms.ddpo:Ddpo",
    "kto": "algorithms.kto:Kto",
    "kto_pair": "algorithms.kto_pair:KtoPair",
    "scalar_rm": "algorithms.scalar_rm:ScalarRm",
    "fact_rm": "algorithms.fact_rm:FactRm",
    "critique_rm": "algorithms.critique_rm:CritiqueRm",
    "mm_dpo": "algorithms.mm_dpo:MmDpo",
    "mpo": "algorithms.mpo:Mpo",
}


def algorithm_class(name: str) -> type[Algorithm]:
    """The class that is registered under a name.

    Raises:
        KeyError: there is none.
    """
    module, _, kind = ALGORITHMS[name].partition(":")
    found: type[Algorithm] = getattr(import_module(module), kind)
    return found
