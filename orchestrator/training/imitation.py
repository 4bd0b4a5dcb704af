"""How much each token of a chosen response counts in MM-DPO's cross-entropy. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol

import torch

from algorithms.maths.aggregation import response_weights
from algorithms.records import Example


class ImitationSettings(Protocol):
    """The numbers of the configuration's ``mm_dpo`` section that weigh the cross-entropy."""

    @property
    def sft_weight(self) -> float: ...
    @property
    def sft_mean(self) -> Literal["token", "response"]: ...
    @property
    def sft_once(self) -> bool: ...


def imitation_shares(examples: Sequence[Example], settings: ImitationSettings) -> list[dict[int, float]]:
    """For each example, for each of its sequences that is chosen in a pair, the weight of each of its tokens.

    A response counts as often as it is chosen, or once. Source: MM-RLHF, dpo_trainer.py:899-910.
    """
    counts = [Counter(chosen for chosen, _ in e.pairs) for e in examples]
    places = [(number, index) for number, count in enumerate(counts) for index in count]
    sequences = [examples[number].sequences[index] for number, index in places]
    num_tokens = torch.tensor([len(s.input_ids) - s.prompt_len for s in sequences])
    repeats = torch.tensor([1 if settings.sft_once else counts[number][index] for number, index in places])
    weights = response_weights(
        num_tokens,
        repeats,
        mode="token-mean" if settings.sft_mean == "token" else "seq-mean-token-mean",
        global_num_sequences=int(repeats.sum()),
        global_num_tokens=int((repeats * num_tokens).sum()),
    )
    shares: list[dict[int, float]] = [{} for _ in examples]
    for (number, index), weight in zip(places, weights.tolist(), strict=True):
        shares[number][index] = settings.sft_weight * weight
    return shares
