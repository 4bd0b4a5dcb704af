"""DDPO (RLHF-V): DPO in which tokens that differ between the responses of a pair have a weight of their own.

Yu et al. 2023, https://arxiv.org/abs/2312.00849
"""

from collections.abc import Sequence

import numpy as np

from algorithms.dpo import Dpo
from algorithms.groups import as_row, response_mask
from algorithms.records import Sequence as TokenSequence


class Ddpo(Dpo):
    """Dense DPO."""

    def weighing(
        self, sequences: Sequence[TokenSequence], pairs: Sequence[tuple[int, int]]
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
        """A response has a score for each of its pairs."""
        weights = [row for c, r in pairs for row in self._corrections(sequences[c], sequences[r])]
        return np.array([i for pair in pairs for i in pair]), tuple(weights), np.arange(2 * len(pairs)).reshape(-1, 2)

    def _corrections(self, chosen: TokenSequence, rejected: TokenSequence) -> list[np.ndarray]:
        """float32 ``[T]`` of both sides."""
        import torch

        from algorithms.maths.token_diff import DDPO_MODES, ddpo_weights, token_diff

        mode, pair = DDPO_MODES[self.preference.ddpo_mode], (chosen, rejected)
        marks = token_diff(*(s.input_ids[s.prompt_len :].tolist() for s in pair))
        rows = []
        for sequence, corrected in zip(pair, marks, strict=True):
            marked = torch.tensor([[False] * sequence.prompt_len + corrected])
            weights = ddpo_weights(
                response_mask(sequence), marked, gamma=mode.gamma, average=mode.average, base_weight=mode.base_weight
            )
            rows.append(as_row(weights))
        return rows
