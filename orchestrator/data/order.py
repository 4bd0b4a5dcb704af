"""Which split a prompt is on and the order of rows: the same on every machine, with every version of every library.

NumPy's generators may change their streams between versions; a resumed run must not see another order for that. So
order comes from BLAKE2b (which stream) and SplitMix64 (its numbers), both fixed for good.
"""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from orchestrator.data.records import Split

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_BITS = 64


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


def assign_split(messages: Iterable[dict[str, Any]], digests: Iterable[str], *, held_out_frac: float) -> Split:
    """Split of a prompt, by a hash of the words and of the media's digests up to its first user turn.

    What follows does not count: the later turns of a conversation hold the answers of its earlier ones. White space and
    the places of images among the words do not count: prompts that differ in these alone are the same question. Every
    row with a prompt goes where the prompt goes, in any file and on any machine.

    Args:
        digests: Of all media, in order.
        held_out_frac: Share of prompts held out, in [0, 1); a larger one holds out these and more.
    """
    parts: list[dict[str, Any]] = []
    for turn in messages:
        parts += turn["content"]
        if turn["role"] == "user":
            break
    words = " ".join(part["text"] for part in parts if part["type"] == "text").split()
    seen = list(islice(digests, sum(part["type"] == "image" for part in parts)))
    digest = hashlib.sha256(json.dumps([" ".join(words), seen]).encode()).digest()
    place = int.from_bytes(digest[: _BITS // 8], "big") / 2**_BITS
    return "held_out" if place < held_out_frac else "train"
