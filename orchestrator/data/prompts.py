"""The data of an online run: read whole, checked, and what is not learned from counted. Nothing is cut to fit."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.schema import TrainConfig
from orchestrator.data.counted import Told, refuse_bad_share
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.keys import Notes
from orchestrator.data.reading import Dataset, read_prompts
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.data.source_file import source_file
from orchestrator.errors import RefusedInput
from orchestrator.run.manifest import DataCounts
from workers.types import Prompt, UnusablePrompt

if TYPE_CHECKING:  # it imports transformers, and most refusals can be had without
    from workers.multimodal.prompt_encoder import PromptEncoder

_Reason = Callable[[Prompt], str | None]
"""Why nothing is learned from a row; None where something is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """The data of one run, read and checked."""

    train: Dataset
    held_out: tuple[Prompt, ...]
    held_out_fingerprint: str | None
    told: Told
    """What people should know of the training file."""
    told_held_out: Told = field(default_factory=Told)

    @property
    def counts(self) -> DataCounts:
        """Rows of the data, as a run's manifest has them."""
        return DataCounts(
            num_train=len(self.train.prompts),
            num_bad_rows=len(self.train.bad_rows),
            num_held_out=len(self.held_out),
            num_by_source=dict(Counter(p.source for p in self.train.prompts)) if self.train.by_source else {},
            data_counts={**self.told.to_json(), "held_out": self.told_held_out.to_json()},
        )

    def lines(self) -> Iterator[str]:
        """What is learned from and what not, for people."""
        yield f"data: learned from: {len(self.train.prompts)} rows"
        yield from (f"data: {line}" for line in self.told.lines())
        yield from (f"held-out data: {line}" for line in self.told_held_out.lines())


def read_data(config: TrainConfig, *, pictures: Path | None = None) -> RunData:
    """Read training and held-out data.

    Args:
        pictures: see ``SourceFile``.
    Raises:
        RefusedInput: from the reader, or rows without what the algorithm learns from.
    """
    sources = config.by_source.items()
    train, told = _all_usable({name: (one, one.data.training_path) for name, one in sources}, pictures)
    if config.data_kind == "demonstrations":
        train = _learned(config, train, _no_demonstration, told, path=_name(config))
    apart = {name: (one, one.data.eval_path) for name, one in sources if one.data.eval_path is not None}
    if not apart:
        return RunData(train=train, held_out=(), held_out_fingerprint=None, told=told)
    held_out, told_held_out = _all_usable(apart, pictures)
    return RunData(
        train=train,
        held_out=held_out.prompts,
        held_out_fingerprint=held_out.fingerprint,
        told=told,
        told_held_out=told_held_out,
    )


def fitting(config: TrainConfig, encoder: "PromptEncoder", data: RunData) -> RunData:
    """The data less the rows that are too long, where ``data.max_bad_frac`` lets any be passed over.

    Where none may be, ``check_lengths`` refuses them.

    Raises:
        RefusedInput: they are more than that.
    """
    allowed, budget = config.data.max_bad_frac, config.policy.tokens_per_microbatch
    if not allowed:
        return data

    def reason(prompt: Prompt) -> str | None:
        try:
            length, bound = len(encoder.encode(prompt).prompt_ids), config.data.max_prompt_tokens
        except UnusablePrompt as error:
            return error.reason
        if length > bound:
            return f"its prompt has {length} tokens, data.max_prompt_tokens = {bound}"
        if config.data_kind == "demonstrations" and prompt.target is not None:
            length += len(encoder.encode_target(prompt.target))
            if length > budget:
                return f"it has {length} tokens with its response, policy.tokens_per_microbatch = {budget}"
        return None

    train = _learned(config, data.train, reason, data.told, path=_name(config))
    if not data.held_out:
        return replace(data, train=train)
    held_out = replace(data.train, prompts=data.held_out, bad_rows=())
    held_out = _learned(
        config, held_out, reason, data.told_held_out, path=str(config.data.eval_path or "the held-out data")
    )
    return replace(data, train=train, held_out=held_out.prompts)


def _name(config: TrainConfig) -> str:
    return config.data.path or "data.source"


def _all_usable(files: Mapping[str, tuple[TrainConfig, str]], pictures: Path | None) -> tuple[Dataset, Told]:
    """The files of all sources one after the other.

    Args:
        files: By name of the source, the run as it reads it, and the file.
    """
    read = {name: _usable(config, path, pictures, name) for name, (config, path) in files.items()}
    if list(read) == [""]:
        return read[""]
    datasets = {name: dataset for name, (dataset, _) in read.items()}
    notes, told = Notes(), Told()
    for name, one in datasets.items():
        notes.num_rows += one.notes.num_rows
        notes.num_with_images += one.notes.num_with_images
        notes.unknown_keys |= {f"{name}: {key}": found for key, found in one.notes.unknown_keys.items()}
    told = Told(notes)
    prints = {name: one.fingerprint for name, one in datasets.items()}
    joined = Dataset(
        prompts=tuple(chain.from_iterable(one.prompts for one in datasets.values())),
        bad_rows=tuple(chain.from_iterable(one.bad_rows for one in datasets.values())),
        fingerprint=hashlib.sha256(json.dumps(prints).encode()).hexdigest(),
        notes=notes,
        by_source=prints,
    )
    told.count("bad rows", joined.bad_rows, total=len(joined.prompts) + len(joined.bad_rows))
    return joined, told


def _usable(config: TrainConfig, path: str, pictures: Path | None, name: str) -> tuple[Dataset, Told]:
    """A file, those rows among its bad ones whose images no model here can take, and what should be told of it."""
    source = source_file(config, path, pictures=pictures, name=name)
    check = ImageCheck(config, root=source.media_root)
    read = read_prompts(source, demonstrations=config.data_kind == "demonstrations")
    dataset, _ = _without(config, read, lambda prompt: check(prompt.media), path=path)
    told, prompts = Told(dataset.notes), dataset.prompts
    told.count("bad rows", dataset.bad_rows, total=len(prompts) + len(dataset.bad_rows))
    bare = [BadRow(uid_parts(p.uid)[1], "others have one") for p in prompts if not p.media]
    told.count("rows without an image", bare if len(bare) < len(prompts) else (), total=len(prompts))
    return dataset, told


def _learned(config: TrainConfig, dataset: Dataset, reason: _Reason, told: Told, *, path: str) -> Dataset:
    """What is learned from; the others are counted."""
    learned, unused = _without(config, dataset, reason, path=path)
    told.count("rows not learned from", unused, total=len(dataset.prompts))
    return learned


def _without(config: TrainConfig, dataset: Dataset, reason: _Reason, *, path: str) -> tuple[Dataset, Sequence[BadRow]]:
    """The dataset less the rows that have a reason against them, and these: they are bad rows from then on.

    Raises:
        RefusedInput: they and the bad rows before are more than ``data.max_bad_frac`` of all, or none is left.
    """
    reasons = [(prompt, reason(prompt)) for prompt in dataset.prompts]
    kept = tuple(prompt for prompt, against in reasons if against is None)
    unused = [_unused(prompt, against) for prompt, against in reasons if against is not None]
    bad_rows = tuple(sorted([*dataset.bad_rows, *unused], key=lambda bad: bad.row))
    bound = config.data.max_bad_frac
    refuse_bad_share(bad_rows, num_good=len(kept), name=path, option="data.max_bad_frac", max_bad_frac=bound)
    if gone := {prompt.source for prompt in dataset.prompts} - {prompt.source for prompt in kept}:
        first = next(bad for bad in unused if f"(source {min(gone)!r})" in bad.reason)
        raise RefusedInput(
            f"data.source {min(gone)!r} has no row to learn from; the first is row {first.row}: {first.reason}"
        )
    return replace(dataset, prompts=kept, bad_rows=bad_rows), unused


def _unused(prompt: Prompt, reason: str) -> BadRow:
    return BadRow(uid_parts(prompt.uid)[1], reason + (f" (source {prompt.source!r})" if prompt.source else ""))


def _no_demonstration(prompt: Prompt) -> str | None:
    return "it has no 'response', which --algo sft learns from" if prompt.target is None else None
