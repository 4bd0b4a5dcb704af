"""A benchmark's file read for somebody who measures: as many bad rows as a run's data may have, and no more.

And which benchmarks a run can be measured on at all. Of a part of the rows, what belongs together stays together: the
two questions about an image, all rotations.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.config.data_section import DataSection
from orchestrator.config.schema import TrainConfig
from orchestrator.data.order import stream_key
from orchestrator.data.shards import beside
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.files import ItemFile, Items, read_items
from orchestrator.evaluation.benchmarks.items import Benchmark, Item
from orchestrator.evaluation.benchmarks.prompts import request_of
from orchestrator.evaluation.benchmarks.registry import benchmark_of


def usable_items(
    path: str,
    media_root: str | None,
    *,
    benchmark: Benchmark,
    data: DataSection,
    pictures: Path,
    tell: Callable[[str], object],
) -> tuple[ItemFile, Items]:
    """The file and its rows; what people should know of them is told, before a refusal too.

    Args:
        media_root: Folder that media stay inside; None is that of the file.
        data: Bounds of images and videos, and the share of bad rows that is passed over.
        pictures: See ``ItemFile``.
    Raises:
        RefusedInput: the file cannot be read, or more of its rows than ``data.max_bad_frac``: the others are another
            benchmark.
    """
    file = ItemFile(
        path=Path(path),
        media_root=beside(Path(path)) if media_root is None else Path(media_root),
        pictures=pictures,
        max_pixels=data.refused_above,
        video_frames=data.video_frames,
    )
    found = read_items(file, benchmark)
    for line in found.lines():
        tell(line)
    bad, count = len(found.bad_rows), len(found.bad_rows) + len(found.items)
    if bad > data.max_bad_frac * count:
        first = found.bad_rows[0]
        raise RefusedInput(
            f"{bad} of {count} rows of {path!r} cannot be used, more than data.max_bad_frac = "
            f"{data.max_bad_frac:g}; row {first.row}: {first.reason}"
        )
    return file, found


def drawn_items(items: Sequence[Item], most: int | None, *, seed: int, name: str) -> tuple[Item, ...]:
    """At most so many of the items, in their order, drawn by groups: a file's first rows are often of one kind.

    Args:
        most: None takes all.
        name: Of the benchmark, for the refusal.
    Raises:
        RefusedInput: the first group that is drawn has more rows.
    """
    if most is None or len(items) <= most:
        return tuple(items)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(f"group {item.group}" if item.group else item.key, []).append(item)
    chosen = set[int]()
    for group in sorted(groups, key=lambda one: stream_key("rows", seed, one)):
        if len(chosen) + len(groups[group]) > most:
            break
        chosen |= {item.row for item in groups[group]}
    if not chosen:
        raise RefusedInput(f"eval.benchmark {name!r}: rows = {most} is less than what belongs together in its file")
    return tuple(item for item in items if item.row in chosen)


def check_benchmarks(config: TrainConfig) -> None:
    """Refuse benchmarks that the run's engines cannot be asked, before a file is read.

    Raises:
        RefusedInput: in one sentence.
    """
    for table in config.eval.benchmark:
        where, benchmark = f"eval.benchmark {table.name!r}", benchmark_of(table.name)
        if config.offline:
            raise RefusedInput(
                f"{where} is asked of engines that hold the policy, and algo = {config.algo!r} on stored responses has "
                "none: measure what it leaves by orchestrator.evaluate, or by a [[stage]] with evaluate"
            )
        if benchmark.asks not in ("answer", "verdict"):
            raise RefusedInput(f"{where} is of {benchmark.asks}, which a policy that writes does not give")
        if benchmark.judge is not None:
            raise RefusedInput(f"{where} is rated by a judge, whom a run does not ask: use orchestrator.evaluate")
        request_of(table.form, table.template)
