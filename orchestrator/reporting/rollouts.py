"""Some of the rollouts that a run kept, of every kind and of all its steps: as many as a page can show.

The files may be anybody's, so that little of them is read: first what tells kinds apart, then the texts of the chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.run.folder import RunFolder
from orchestrator.run.plain_files import UnreadableFile, open_plain
from orchestrator.run.rollout_store import OWN_COLUMNS

MOST_STEPS, _MOST_ROWS = 200, 800
_MOST_PER_STEP, _MOST_PARTS = 12, 12
_MOST_BYTES, _MOST_READ_BYTES, _MOST_VALUES = 1 << 32, 1 << 29, 1 << 21
_LONGEST_NAME = 4096
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_KINDS = {"reward_status": _TEXT, "answer_right": pa.bool_(), "label": _TEXT, "verdict": _TEXT, "source": _TEXT}
"""Columns that tell kinds apart; those of later versions may be missing."""
_TOLD = {
    "uid": _TEXT, "sample_index": pa.int32(), "prompt_text": _TEXT, "completion_text": _TEXT, "media": _TEXTS,
    "media_paths": _TEXTS, "reward": pa.float64(), "reward_status": _TEXT, "finish_reason": _TEXT,
}  # fmt: skip
"""Columns that every version has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One as a page tells it; see ``RolloutRow``."""

    uid: str
    sample_index: int
    prompt_text: str
    completion_text: str
    media: tuple[tuple[str, str], ...]
    """Path and SHA-256 of each image."""
    reward: float | None
    reward_status: str
    finish_reason: str
    parts: Mapping[str, float | None] = field(default_factory=dict)
    label: str | None = None
    verdict: str | None = None
    answer_right: bool | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRollouts:
    """Those of one step."""

    step: int
    shown: tuple[Rollout, ...] = ()
    num_rows: int = 0
    num_labelled: int = 0
    num_right: int = 0
    problem: str = ""
    """Why there are none."""


def some_rollouts(folder: RunFolder, *, share: float = 1.0) -> list[StepRollouts]:
    """A few of each step, of as many steps as a page holds, the first and the last among them.

    Args:
        share: Of the page's room for them.
    """
    steps = spread(folder.rollout_steps(), max(2, int(share * MOST_STEPS)))
    per_step = min(_MOST_PER_STEP, max(2, int(share * _MOST_ROWS) // max(1, len(steps))))
    return [_of_step(folder, step, per_step) for step in steps]


def spread(values: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly, with both ends."""
    if len(values) <= most:
        return list(values)
    return [values[k * (len(values) - 1) // (most - 1)] for k in range(most)]


def each_kind_in_turn(kinds: Iterable[object], most: int) -> list[int]:
    """Places of at most so many: the first of each kind, then the second of each, and so on; in ascending order."""
    seen: dict[object, int] = {}
    ranked = []
    for place, kind in enumerate(kinds):
        seen[kind] = seen.get(kind, 0) + 1
        ranked.append((seen[kind], place))
    return sorted(place for _, place in sorted(ranked)[:most])


def _of_step(folder: RunFolder, step: int, most: int) -> StepRollouts:
    path = folder.rollout_file(step)
    try:
        with open_plain(path, most=_MOST_BYTES, inside=folder.root) as file:
            metadata = pq.read_metadata(file)
            texts = [name for name in metadata.schema.to_arrow_schema().names if (_KINDS | _TOLD).get(name) == _TEXT]
            # Texts that a small file may repeat a million times stay in memory once.
            return _read(pq.ParquetFile(file, metadata=metadata, read_dictionary=texts), step, most)
    except (pa.ArrowException, OSError) as error:
        told = (str(error).splitlines() or [""])[0]
        return StepRollouts(step=step, problem=f"its rollouts cannot be read: {told[:200]}")
    except UnreadableFile as error:
        return StepRollouts(step=step, problem=f"its rollouts cannot be read: {path.name} {error}")


def _read(file: pq.ParquetFile, step: int, most: int) -> StepRollouts:
    kinds = _columns(file, [name for name in _KINDS if name in file.schema_arrow.names])
    nothing: list[Any] = [None] * file.metadata.num_rows
    labels, verdicts, statuses, sources = (
        kinds.get(name, nothing) for name in ("label", "verdict", "reward_status", "source")
    )
    # One of an earlier version, which knew judgements alone, does not say which are right.
    right = kinds.get("answer_right") or [
        None if label is None else label == verdict for label, verdict in zip(labels, verdicts, strict=True)
    ]
    places = each_kind_in_turn(zip(right, statuses, sources, strict=True), most)
    known = [answer for answer in right if answer is not None]
    parts = [name for name in file.schema_arrow.names if name not in OWN_COLUMNS][:_MOST_PARTS]
    told = _columns(file, [*_TOLD, *parts], places)
    shown = [
        Rollout(
            uid=told["uid"][k] or "",
            sample_index=told["sample_index"][k] or 0,
            prompt_text=told["prompt_text"][k] or "",
            completion_text=told["completion_text"][k] or "",
            reward=told["reward"][k],
            reward_status=told["reward_status"][k] or "",
            finish_reason=told["finish_reason"][k] or "",
            media=_media(told["media_paths"][k], told["media"][k]),
            parts={name: told[name][k] for name in parts},
            label=labels[place],
            verdict=verdicts[place],
            answer_right=right[place],
            source=sources[place] or "",
        )
        for k, place in enumerate(places)
    ]
    return StepRollouts(
        step=step, shown=tuple(shown), num_rows=len(right), num_labelled=len(known), num_right=sum(known)
    )


def _columns(file: pq.ParquetFile, names: Sequence[str], places: Sequence[int] | None = None) -> dict[str, list[Any]]:
    """Values of some columns by name, of all rows or of those in some places.

    Raises:
        UnreadableFile: a column is missing, of another kind, or more than is read of a stranger's file.
    """
    for name in names:
        wanted = (_KINDS | _TOLD).get(name, pa.float64())
        if name not in file.schema_arrow.names or _plain(file.schema_arrow.field(name).type) != wanted:
            raise UnreadableFile(f"has no column {name!r} of {wanted}")
    _refuse_more(file.metadata, names)
    table = file.read(columns=list(names))
    if places is not None:
        table = table.take(pa.array(places, pa.int64()))
    return {name: _values(table.column(name)) for name in names}


def _refuse_more(metadata: pq.FileMetaData, names: Sequence[str]) -> None:
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    columns = [group.column(k) for group in groups for k in range(group.num_columns)]
    wanted = [one for one in columns if one.path_in_schema.partition(".")[0] in names]
    size = sum(one.total_uncompressed_size for one in wanted)
    count = max((one.num_values for one in wanted), default=0) * len(groups)
    if not 0 <= size <= _MOST_READ_BYTES or not 0 <= count <= _MOST_VALUES or metadata.num_rows > _MOST_VALUES:
        told = f"has {size} bytes in {max(count, metadata.num_rows)} values"
        raise UnreadableFile(f"{told}, more than {_MOST_READ_BYTES} in {_MOST_VALUES}")


def _values(column: pa.ChunkedArray) -> list[Any]:
    """As Python has them; a text that stands in many rows is in memory once."""
    found: list[Any] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            texts = chunk.dictionary.to_pylist()
            found += [None if code is None else texts[code] for code in chunk.indices.to_pylist()]
            continue
        if pa.types.is_list(chunk.type) and len(chunk.values):
            longest = pc.max(pc.binary_length(chunk.values)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
            if longest > _LONGEST_NAME:
                raise UnreadableFile(f"has the name of an image of {longest} bytes, more than {_LONGEST_NAME}")
        found += chunk.to_pylist()
    return found


def _media(paths: list[str | None] | None, digests: list[str | None] | None) -> tuple[tuple[str, str], ...]:
    return tuple((path or "", digest or "") for path, digest in zip(paths or (), digests or (), strict=False))


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without its dictionaries."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    # The name of what a list holds is no matter.
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind
