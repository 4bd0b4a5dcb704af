"""Seeded permutations that are the same on every machine and with every version of every library.

NumPy's generators may change their streams between versions; a resumed run must not see another order for that. So
order comes from BLAKE2b (which stream) and SplitMix64 (its numbers), both fixed for good.
"""

import hashlib
import json

import numpy as np

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def stream_key(*names: str | int) -> int:
    """A 64-bit key for the stream with these names."""
    return int.from_bytes(hashlib.blake2b(json.dumps(names).encode(), digest_size=8).digest(), "big")


def permutation(length: int, key: int) -> np.ndarray:
    """Numbers 0 to ``length`` − 1 in the order of the key's stream; int64 ``[length]``.

    Source: SplitMix64, Steele et al. 2014, https://doi.org/10.1145/2714064.2660195
    """
    # Unsigned arithmetic wraps, as the generator wants it.
    z = np.uint64(key) + _GOLDEN_GAMMA * np.arange(1, length + 1, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")
