"""The report of 200 steps with photographs: how large the page is, and how long Chromium takes to open it.

PYTHONPATH=. python benchmarks/report_page.py [OUT]

Of each step 64 rollouts with answers of 1,500 characters, of photographs none of which is seen in two steps; two
evaluations of 256 prompts. Five openings with a fresh profile each: until the page is loaded, and what a filter takes.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from machine import machine_lines
from PIL import Image

from orchestrator.report import write_report
from tests.browser import browser, opened
from tests.needs import chromium
from tests.report_runs import Media, held_out, media, rollout, write_run

_STEPS, _ROLLOUTS, _HELD_OUT, _OPENINGS = 200, 64, 256, 5
_SIDE = 448
_TEXT = (
    "The left chart rises from 12 to 40 and the right one falls, so that the second response is the better one. " * 14
)
_MOST_MIB, _MOST_S = 15.0, 2.0


def main(out: Path) -> int:
    """Print size and seconds; 1 where one is over its bound."""
    run = _run(out)
    began = time.perf_counter()
    page = write_report(run)
    made_s, size_mib = time.perf_counter() - began, page.stat().st_size / (1 << 20)
    print("\n".join(machine_lines()))  # noqa: T201
    print(f"page of {_STEPS} steps: {size_mib:.1f} MiB (at most {_MOST_MIB:.0f}), written in {made_s:.1f} s")  # noqa: T201
    loaded, filtered = zip(*(_opened_s(page, out / f"profile{k}") for k in range(_OPENINGS)), strict=True)
    print(f"opened in {_told(loaded)} (at most {_MOST_S:.0f} s); a filter applied in {_told(filtered)}")  # noqa: T201
    return int(size_mib > _MOST_MIB or max(loaded) > _MOST_S)


def _opened_s(page: Path, profile: Path) -> tuple[float, float]:
    with browser(chromium(), profile) as context:
        found = opened(context, page)
        loaded = found.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        applied = found.page.evaluate(
            """() => {
                const began = performance.now(), least = document.querySelector("[data-by=reward][data-end=least]");
                least.value = "1";
                least.dispatchEvent(new Event("input", {bubbles: true}));
                document.body.getBoundingClientRect();
                return (performance.now() - began) / 1000;
            }"""
        )
        assert not found.complaints and all(found.widths()), "a picture is missing, or the console complained"
        return loaded, applied


def _told(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def _run(out: Path) -> Path:
    rng = np.random.default_rng(0)
    (out / "photos").mkdir()
    rollouts = {}
    for step in range(1, _STEPS + 1):
        shown = [_photo(out / "photos" / f"{step}_{k}.jpg", rng) for k in range(4)]
        rollouts[step] = [
            rollout(
                shown[k % 4],
                uid=f"train-{step:06d}-{k}",
                prompt_text=f"[image] Which response is better? {_TEXT[:600]}",
                completion_text=_TEXT,
                reward=float(rng.choice([0.0, 0.5, 1.0, 2.5])),
                answer_right=bool(rng.integers(2)),
                source=str(rng.choice(["charts", "maps", "photos"])),
            )
            for k in range(_ROLLOUTS)
        ]
    shown = [_photo(out / "photos" / f"held_out_{k}.jpg", rng) for k in range(64)]
    evaluations = {
        step: [held_out(f"h{k}", _TEXT, right=bool(rng.integers(2)), shown=shown[k % 64]) for k in range(_HELD_OUT)]
        for step in (0, _STEPS)
    }
    rows = [
        {"step": step, **{f"{group}/{name}": float(rng.normal(step)) for group in _GROUPS for name in "abcdefgh"}}
        for step in range(_STEPS + 1)
    ]
    return write_run(out / "run", rows, rollouts=rollouts, evaluations=evaluations)


_GROUPS = ("reward", "policy", "mismatch", "judge", "eval", "rollout")


def _photo(path: Path, rng: np.random.Generator) -> Media:
    """Coarse and fine noise over each other: about as hard to compress as a photograph."""
    coarse = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rng.integers(0, 255, (_SIDE // 2, _SIDE // 2, 3), dtype=np.uint8)).resize((_SIDE, _SIDE))
    Image.blend(coarse, fine, 0.15).save(path, quality=85)
    return media(path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(folder)))
