"""Prompts with the images of others: a control, for whoever claims to look."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workers.types import Prompt

_SHUFFLE_SEED = 20_250_502


def shuffle_images(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Give every prompt the images of another with as many; seeded, so each evaluation uses the same swap."""
    rng = np.random.Generator(np.random.Philox(_SHUFFLE_SEED))
    source = list(range(len(prompts)))
    for count in {len(p.media) for p in prompts}:
        members = [i for i, p in enumerate(prompts) if len(p.media) == count]
        for i, j in zip(members, rng.permutation(members), strict=True):
            source[i] = int(j)
    return [replace(p, uid=f"{p.uid}-shuffled", media=prompts[j].media) for p, j in zip(prompts, source, strict=True)]
