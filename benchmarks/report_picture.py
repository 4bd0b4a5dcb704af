"""A picture of a run's report, for the README, as Chromium draws it: of curves, prompts and rollouts the first few.

PYTHONPATH=. python benchmarks/report_picture.py RUN_DIR docs/report.png [dark]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from orchestrator.report import write_report
from tests.browser import browser, opened
from tests.needs import chromium

_WIDTH, _HEIGHT, _NUM_COLOURS = 1240, 1980, 128
_SHORT = """
.curves figure:nth-child(n + 4), .samples article:nth-child(n + 4), .group ~ .group { display: none; }
article { content-visibility: visible; }
"""
_MOST_BYTES = 300_000


def main(run: Path, out: Path, colours: str) -> None:
    """Write the picture; fail where it is larger than a README should load."""
    with (
        tempfile.TemporaryDirectory() as profile,
        browser(chromium(), Path(profile), colours=colours, width=_WIDTH) as one,
    ):
        found = opened(one, write_report(run))
        assert all(found.widths()) and not found.complaints
        found.page.add_style_tag(content=_SHORT)
        found.page.screenshot(path=out, full_page=True, clip={"x": 0, "y": 0, "width": _WIDTH, "height": _HEIGHT})
    with Image.open(out) as drawn:
        drawn.convert("RGB").quantize(_NUM_COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)
    size = out.stat().st_size
    assert size <= _MOST_BYTES, f"{size} bytes, more than {_MOST_BYTES}"
    print(f"{out}: {size} bytes")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "light")
