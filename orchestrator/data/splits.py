"""Which side of a split a prompt is on: a function of how it opens, so that no prompt or conversation is on both."""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

from orchestrator.data.records import Split

_BITS = 64


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
