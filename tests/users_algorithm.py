"""An algorithm as a user writes it, in one file of their own."""

from pathlib import Path

TOY = '''
from pydantic import Field

from algorithms.preference import Preference
from algorithms.settings import Section


class ToySection(Section):
    """How the toy learns."""

    power: float = Field(default=2.0, gt=0.0)
    """How steep the loss is."""


def helper(x):
    return x * 1


class Toy(Preference):
    sections = {**Preference.sections, "toy": ToySection}
    defaults = {"optimizer.lr": 3e-4}
    profiles = {"steep": {"toy.power": 3.0}}

    def check(self, config):
        power = self.settings["toy"].power
        if power > 6 and power % 2:
            raise ValueError(f"toy.power = {power:g} is odd and above 6")

    def pair_loss(self, chosen, rejected, betas):
        return helper((1 - betas * (chosen - rejected)).abs() ** self.settings["toy"].power)
'''


def write_toy(folder: Path, *, old: str = "", new: str = "") -> str:
    """``FILE.py:NAME`` of the toy, of which one text may be another."""
    (folder / "toy.py").write_text(TOY.replace(old, new) if old else TOY)
    return f"{folder / 'toy.py'}:Toy"
