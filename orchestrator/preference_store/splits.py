"""Which side of a split a prompt is on: a function of the prompt alone, so that no prompt is on both."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from orchestrator.preference_store.records import Split

_BITS = 64


def assign_split(messages: Iterable[dict[str, Any]], digests: Iterable[str], *, held_out_frac: float) -> Split:
    """Split of a prompt, by a hash of its words and of the digests of its media.

    White space and the places of images among the words do not count: prompts that differ in these alone are the same
    question. Every row with a prompt goes where the prompt goes, in any file and on any machine.

    Args:
        held_out_frac: Share of prompts held out, in [0, 1); a larger one holds out these and more.
    """
    parts = [part for turn in messages for part in turn["content"]]
    words = " ".join(part["text"] for part in parts if part["type"] == "text").split()
    digest = hashlib.sha256(json.dumps([" ".join(words), list(digests)]).encode()).digest()
    place = int.from_bytes(digest[: _BITS // 8], "big") / 2**_BITS
    return "held_out" if place < held_out_frac else "train"
