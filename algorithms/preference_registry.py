"""What each offline algorithm learns from, as data; light enough for whoever only plans a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # it imports torch
    from algorithms.maths.preference_losses import DpoKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceAlgorithm:
    """One offline algorithm."""

    learns_from: Literal["pairs", "labels", "best"]
    """Pairs of responses, every response by itself as desirable or not, or the best response alone."""
    loss: Literal["dpo", "kto", "kto_pair", "sft", "bradley_terry", "critique_rm"]
    pair_kind: "DpoKind" = "sigmoid"
    weighs_corrections: bool = False
    """Tokens that differ between the responses of a pair have a weight of their own (DDPO)."""
    weighs_pairs: bool = False
    """Each pair has a beta of its own, and the chosen responses are imitated as well (MM-DPO)."""

    @property
    def gives_rewards(self) -> bool:
        """True where the model gets a scalar head that says how good a response is."""
        return self.loss in ("bradley_terry", "critique_rm")

    @property
    def writes_critiques(self) -> bool:
        """True where the model says in words what is good and bad about a response before it gives a reward."""
        return self.loss == "critique_rm"

    @property
    def needs_reference(self) -> bool:
        """True where responses are scored by what the policy thinks of them beyond the reference."""
        return self.loss in ("dpo", "kto", "kto_pair")


PREFERENCE_ALGORITHMS: dict[str, PreferenceAlgorithm] = {
    "dpo": PreferenceAlgorithm(learns_from="pairs", loss="dpo"),
    "hinge": PreferenceAlgorithm(learns_from="pairs", loss="dpo", pair_kind="hinge"),
    # Its other reduction, ``ipo_sum``, is a setting.
    "ipo": PreferenceAlgorithm(learns_from="pairs", loss="dpo", pair_kind="ipo_mean"),
    "ddpo": PreferenceAlgorithm(learns_from="pairs", loss="dpo", weighs_corrections=True),
    "kto": PreferenceAlgorithm(learns_from="labels", loss="kto"),
    "kto_pair": PreferenceAlgorithm(learns_from="pairs", loss="kto_pair"),
    "sft": PreferenceAlgorithm(learns_from="best", loss="sft"),
    "critique_rm": PreferenceAlgorithm(learns_from="pairs", loss="critique_rm"),
    "mm_dpo": PreferenceAlgorithm(learns_from="pairs", loss="dpo", weighs_pairs=True),
    "scalar_rm": PreferenceAlgorithm(learns_from="pairs", loss="bradley_terry"),
}
