"""The data of an online run: read whole, checked, and what is not learned from counted. Nothing is cut to fit."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.config.schema import TrainConfig
from orchestrator.data.counted import Told
from orchestrator.data.dataset import Dataset, refuse_bad_rows
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.reading import read_prompts, source_file
from orchestrator.data.usable import look_through, without_unusable
from orchestrator.run.manifest import DataCounts
from workers.types import Prompt, UnusablePrompt

if TYPE_CHECKING:  # it imports transformers, and most refusals can be had without
    from workers.multimodal.prompt_encoder import PromptEncoder


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
            data_counts={**self.told.to_json(), "held_out": self.told_held_out.to_json()},
        )

    def lines(self) -> Iterator[str]:
        """What is learned from and what not, for people."""
        yield f"data: learned from: {len(self.train.prompts)} rows"
        yield from (f"data: {line}" for line in self.told.lines())
        yield from (f"held-out data: {line}" for line in self.told_held_out.lines())


def read_data(config: TrainConfig) -> RunData:
    """Read training and held-out data.

    Raises:
        RefusedInput: from the reader, or rows without what the algorithm learns from.
    """
    assert config.data.path is not None
    train = _usable(config, config.data.path)
    told = look_through(train)
    if config.algo == "sft":
        bound = config.data.max_bad_frac
        train = without_unusable(train, _no_demonstration, told, name=config.data.path, max_bad_frac=bound)
    if config.data.eval_path is None:
        return RunData(train=train, held_out=(), held_out_fingerprint=None, told=told)
    held_out = _usable(config, config.data.eval_path)
    return RunData(
        train=train,
        held_out=held_out.prompts,
        held_out_fingerprint=held_out.fingerprint,
        told=told,
        told_held_out=look_through(held_out),
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
    assert config.data.path is not None

    def reason(prompt: Prompt) -> str | None:
        try:
            length, bound = len(encoder.encode(prompt).prompt_ids), config.data.max_prompt_tokens
        except UnusablePrompt as error:
            return error.reason
        if length > bound:
            return f"its prompt has {length} tokens, data.max_prompt_tokens = {bound}"
        if config.algo == "sft" and prompt.target is not None:
            length += len(encoder.encode_target(prompt.target))
            if length > budget:
                return f"it has {length} tokens with its response, policy.tokens_per_microbatch = {budget}"
        return None

    train = without_unusable(data.train, reason, data.told, name=config.data.path, max_bad_frac=allowed)
    if not data.held_out:
        return replace(data, train=train)
    held_out = replace(data.train, prompts=data.held_out, bad_rows=())
    name = str(config.data.eval_path)
    held_out = without_unusable(held_out, reason, data.told_held_out, name=name, max_bad_frac=allowed)
    return replace(data, train=train, held_out=held_out.prompts)


def _usable(config: TrainConfig, path: str) -> Dataset:
    """A file, those rows among its bad ones whose images no model here can take."""
    source = source_file(config, path)
    dataset = read_prompts(source, demonstrations=config.algo == "sft")
    usable = ImageCheck(config, root=source.media_root).usable(dataset)
    refuse_bad_rows(usable, name=path, max_bad_frac=config.data.max_bad_frac)
    return usable


def _no_demonstration(prompt: Prompt) -> str | None:
    return "it has no 'response', which --algo sft learns from" if prompt.target is None else None
