"""Which format a file is in, by the keys of its first row."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.config.data_folders import is_store
from orchestrator.config.data_section import DataSection
from orchestrator.config.formats import refuse_unserved
from orchestrator.config.schema import TrainConfig
from orchestrator.data.rows import JsonRow
from orchestrator.data.source_file import SourceFile

_LOOKED_AT = 20
"""Rows, of which the first good one tells."""
_KEYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("r1_reward", ("message", "answer")),
    ("mm_rlhf", ("responses", "ranking")),
    ("mm_rlhf_pairs", ("question", "response", "rejected_response")),
    ("mm_rlhf_pairs", ("prompt", "chosen", "rejected", "chosen_reason")),
    ("mm_rlhf_pairs", ("prompt", "chosen", "rejected", "ls_factor")),
    ("vlfeedback", ("prompt", "completions")),
    ("plain_kto", ("prompt", "completion", "label")),
    ("plain_kto", ("messages", "kto_tag")),
    ("plain_kto", ("conversations", "kto_tag")),
    ("pairs", ("chosen", "rejected")),
    ("pairs", ("messages", "rejected_response")),
    ("pairs", ("messages", "rejected_messages")),
    ("pairs", ("messages", "rejected_images")),
    ("llava_preference", ("output_1", "output_2", "preference")),
    ("llava_ppo", ("conversations", "caption_type")),
    ("llava_ppo", ("conversations", "length_bonus")),
    ("vlquery_json", ("conversations",)),
    *(
        ("task", (prompt, label))
        for prompt in ("problem", "prompt", "question", "query", "messages")
        for label in ("answer", "solution", "ground_truth", "label")
    ),
    *(("task", (prompt,)) for prompt in ("problem", "prompt", "question", "query", "messages")),
)
"""Keys by which a format is known; the first that a row has all of."""


_LABELLED = (
    *("answer", "solution", "ground_truth", "label", "kto_tag"),
    *("chosen", "rejected", "rejected_response", "rejected_messages", "rejected_images"),
)
"""Beside a conversation they say that it is no demonstration."""


def recognised(path: Path, *, columns: Mapping[str, str] | None = None, map_option: str = "--map") -> str | None:
    """The format of a file; None where its keys are those of no format.

    A file without a row that could tell is of the default format, whose reader says what is wrong with it.

    Args:
        columns, map_option: see ``SourceFile``.
    Raises:
        RefusedInput: it cannot be read at all, or ``columns`` does not fit it.
    """
    with TemporaryDirectory() as pictures:
        source = SourceFile(
            path=path,
            read_by="",
            media_root=path.parent,
            max_pixels=None,
            video_frames=1,
            pictures=Path(pictures),
            columns=columns or {},
            map_option=map_option,
        )
        rows = islice(source.rows(rows_share=None), _LOOKED_AT)
        first = next((row for row in rows if isinstance(row, JsonRow)), None)
        return DataSection().format if first is None else _format_of(first.value)


def with_format(config: TrainConfig) -> TrainConfig:
    """The run with the format that its data are in, where the user has named none.

    Raises:
        RefusedInput: the algorithm does not learn from such rows.
    """
    data = config.data
    if data.source:
        return _with_formats(config)
    told = data.reader is not None or "format" in data.model_fields_set
    if told or data.path is None or not Path(data.path).exists() or is_store(data.path):
        return config
    found = recognised(Path(data.path), columns=data.map, map_option="data.map")
    if found is None:
        return config
    known = config.model_copy(update={"data": data.model_copy(update={"format": found})})
    if not known.offline:
        refuse_unserved(found, algo=known.algo, needs=(known.data_kind,))
    return known


def _with_formats(config: TrainConfig) -> TrainConfig:
    """Likewise for each source that has none of its own."""
    read = {name: with_format(one).data for name, one in config.by_source.items()}
    told = config.data.reader is not None or "format" in config.data.model_fields_set
    sources = tuple(
        source if told or source.format else source.model_copy(update={"format": read[source.name].format})
        for source in config.data.source
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"source": sources})})


def _format_of(row: Any) -> str | None:
    if not isinstance(row, Mapping):
        return None
    if _is_rlhfv(row):
        return "rlhfv"
    given = {key for key, value in row.items() if value is not None}
    if given.issuperset(("messages", "label")) and isinstance(row["label"], bool):
        return "plain_kto"
    if not given.intersection(_LABELLED) and _ends_with_answer(row.get("messages")):
        return "vlquery_json"
    return next((name for name, keys in _KEYS if given.issuperset(keys)), None)


def _ends_with_answer(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def _is_rlhfv(row: Mapping[str, Any]) -> bool:
    """A JSON text of both answers."""
    try:
        inside = json.loads(row["text"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    return isinstance(inside, dict) and {"question", "chosen", "rejected"} <= set(inside)
