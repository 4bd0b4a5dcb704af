"""The rows that an online run learns from, of those that can be read; the others are counted and told."""

from collections.abc import Callable
from dataclasses import replace

from orchestrator.data.counted import Told
from orchestrator.data.dataset import BadRow, Dataset, refuse_bad_share, uid_parts
from workers.types import Prompt


def look_through(dataset: Dataset) -> Told:
    """What should be told of a file that was read whole."""
    told, prompts = Told(dataset.notes), dataset.prompts
    told.count("bad rows", dataset.bad_rows, total=len(prompts) + len(dataset.bad_rows))
    bare = [BadRow(uid_parts(p.uid)[1], "others have one") for p in prompts if not p.media]
    told.count("rows without an image", bare if len(bare) < len(prompts) else (), total=len(prompts))
    return told


def without_unusable(
    dataset: Dataset, reason: Callable[[Prompt], str | None], told: Told, *, name: str, max_bad_frac: float
) -> Dataset:
    """The dataset less the rows that have a reason against them, which are bad rows from then on.

    Args:
        name: Of the file.
    Raises:
        RefusedInput: they and the bad rows before are more than ``max_bad_frac`` of all, or none is left.
    """
    reasons = [reason(p) for p in dataset.prompts]
    unused = [BadRow(uid_parts(p.uid)[1], r) for p, r in zip(dataset.prompts, reasons, strict=True) if r is not None]
    kept = tuple(p for p, r in zip(dataset.prompts, reasons, strict=True) if r is None)
    bad_rows = tuple(sorted([*dataset.bad_rows, *unused], key=lambda bad: bad.row))
    refuse_bad_share(bad_rows, num_good=len(kept), name=name, option="data.max_bad_frac", max_bad_frac=max_bad_frac)
    told.count("rows not learned from", unused, total=len(dataset.prompts))
    return replace(dataset, prompts=kept, bad_rows=bad_rows)
