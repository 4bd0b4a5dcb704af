"""What a run's configuration says of its data."""

from typing import Any, Literal

from pydantic import Field, field_validator

from algorithms.settings import Count, GivenPath, Section, Share, Text
from orchestrator.config.formats import DataFormat


class DataSource(Section):
    """One of several sources: a ``[[data.source]]`` table."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """What its figures and prompts are called by."""
    path: GivenPath
    """Its training file, or the folder of its shards."""
    weight: float = Field(default=1.0, gt=0.0)
    """How often its prompts are drawn, beside the weights of the others."""
    media_root: GivenPath | None = None
    """As data.media_root, which stands where this is none."""
    format: DataFormat | None = None
    """As data.format; none = data.reader, or the format that the keys of its path tell."""
    map: dict[Text, Text] = Field(default={})
    """As data.map, which stands where this is empty."""
    eval_path: GivenPath | None = None
    """Its held-out file; none = no evaluation on it."""


class DataSection(Section):
    """What the model is trained and evaluated on."""

    path: GivenPath | None = None
    """Training file, the folder of its shards, or that of a preference store; none = the embedded task, digits."""
    source: tuple[DataSource, ...] = Field(default=(), strict=False)
    """Several sources in place of data.path, mixed by weight: [[data.source]] tables of a --config file, each with a
    name and a path."""
    media_root: GivenPath | None = None
    """Folder that every media path must stay inside; none = the folder of the data file or of its shards."""
    format: DataFormat = "r1_reward"
    """Format of the data files; not given, it is the one that the keys of data.path tell."""
    reader: GivenPath | None = None
    """FILE.py:NAME of a function that reads a row of the data files, in place of data.format; none = the format's."""
    map: dict[Text, Text] = Field(default={})
    """Columns of the data files that have other names than the format reads, { prompt = "problem", image = "img" };
    on the command line prompt=problem image=img."""
    facts: tuple[GivenPath, ...] = Field(default=(), strict=False)
    """JSON files of what is true of the samples, { "id of a row": ["a caption", "a rationale"] }, which reward models
    are told; every row of the data files must be in one."""
    eval_path: GivenPath | None = None
    """Held-out file in the same format, or store; none = no evaluation, the store's held-out split, or the embedded
    task's own."""
    held_out_frac: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of prompts held out when a file of preferences becomes a store."""
    max_pixels: Count | None = None
    """Bound on an image's pixels, for every role and the exported model; none = that of the model's own processor."""
    oversize: Literal["resize", "refuse"] = "resize"
    """What happens to an image above data.max_pixels: resize = the processor resizes it, where it resizes by a number
    of pixels; refuse = its row is a bad one."""
    max_prompt_tokens: Count = 20_480
    """Longest prompt accepted, tokens with image placeholders expanded; a prompt is never truncated."""
    max_bad_frac: Share = 0.0
    """Share of bad rows that is skipped with a count instead of refused."""
    video_frames: Count = 8
    """Frames read from each video."""

    @field_validator("map")
    @classmethod
    def _names_each_once(cls, columns: dict[str, str]) -> dict[str, str]:
        twice = [name for name in columns.values() if list(columns.values()).count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} has two names in it, expected one")
        return columns

    def check(self, config: Any) -> None:
        """Refuse facts of nobody's rows."""
        if self.facts and self.path is None and not self.source:
            raise ValueError(f"data.facts = {self.facts[0]!r} needs data.path: the embedded task has no facts")

    @property
    def training_path(self) -> str:
        """``path``, for whoever comes after the embedded task has made its own."""
        assert self.path is not None, "the embedded task makes its data before anything is read"
        return self.path

    @property
    def parts(self) -> "tuple[DataSection, ...]":
        """The section as each source has it, in the order of ``source``; itself where there are none."""
        return tuple(map(self._of, self.source)) or (self,)

    def _of(self, source: DataSource) -> "DataSection":
        own = {"path": source.path, "eval_path": source.eval_path, "source": ()}
        own |= {name: value for name in ("media_root", "map") if (value := getattr(source, name))}
        own |= {"format": source.format, "reader": None} if source.format else {}
        return self.model_copy(update=own)

    @property
    def read_by(self) -> str:
        """What the data files are read by: a format's name, or the user's FILE.py:NAME."""
        return self.reader or self.format

    @property
    def resized_above(self) -> int | None:
        """Pixels above which processors resize; None is their own bound."""
        return self.max_pixels if self.oversize == "resize" else None

    @property
    def refused_above(self) -> int | None:
        """Pixels above which a row is refused; None refuses none."""
        return self.max_pixels if self.oversize == "refuse" else None
