"""Reward functions as users write them, good and bad; loaded by the service from this file."""

import os
import subprocess
import sys
import time
from typing import Any


def misbehaving(completion: str) -> Any:
    """Does what the completion says."""
    sys.stdout.write("noise that is no answer\n")
    if completion == "raise":
        raise RuntimeError("boom\nof two lines")
    if completion == "hang":
        subprocess.Popen(["sleep", "987654"])
        time.sleep(1000)
    if completion == "eat":
        return len("a" * (1 << 34))
    if completion == "exit":
        sys.exit(3)
    if completion == "os_exit":
        os._exit(4)
    returned = {"nan": float("nan"), "text": "1", "list": [1.0, 2.0], "huge": 1e300, "nothing": None, "truth": True}
    return returned.get(completion, 0.5)


def slow(completion: str) -> float:
    """A tenth of the samples takes longer than anybody waits."""
    if completion.endswith("0"):
        time.sleep(1000)
    return 1.0


def shortest(completions: list[str]) -> list[float]:
    """Of the samples of a prompt, the shortest is best."""
    least = min(map(len, completions))
    return [float(len(text) == least) for text in completions]


def too_many(completions: list[str]) -> list[float]:
    """One value too many."""
    return [0.0] * (len(completions) + 1)


def reddish(completion: str, label: str, images: list[Any], row: dict[str, Any], *, bonus: float = 0.0) -> float:
    """Looks at the picture, the label and the row."""
    red, green, blue = images[0].resize((1, 1)).getpixel((0, 0))
    return float(completion == label) * row["worth"] * (red > green + blue) + bonus


def unfilled(completion: str, nobody_gives_this: int) -> float:
    """Cannot be called."""
    return 0.0
