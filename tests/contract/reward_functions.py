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
    if completion == "leave":
        # It leaves the session and keeps the way to the parent open.
        if os.fork() == 0:
            os.setsid()
            _sleep_in_a_copy()
        time.sleep(1000)
    if completion == "fork" and os.fork() == 0:
        return 0.25
    if completion == "eat":
        return len("a" * (1 << 34))
    if completion == "exit":
        sys.exit(3)
    if completion == "os_exit":
        os._exit(4)
    returned = {"nan": float("nan"), "text": "1", "list": [1.0, 2.0], "huge": 1e300, "nothing": None, "truth": True}
    return returned.get(completion, 0.5)


def _sleep_in_a_copy() -> None:
    subprocess.Popen(["sleep", "31.4159"], close_fds=False)
    os._exit(0)


def steady(completion: str) -> float:
    """Slow for everybody, and within its time."""
    time.sleep(0.3)
    return 1.0


def optional(completion: str, *, strict: bool | None = None, most: int | None = None) -> float:
    """What was asked for, where it is what it should be."""
    return float(most or 0) if strict is False and isinstance(most, int) else -1.0


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


def ended(completions: list[str], finish_reasons: list[str]) -> list[float]:
    """How many of the prompt's samples came to an end of their own."""
    return [float(finish_reasons.count("stop"))] * len(completions)
