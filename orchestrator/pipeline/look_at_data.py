"""The data of a run as a dry run sees them: read as the run would, refused as it would, and nothing written."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from algorithms.preference import PreferenceSection
from orchestrator.config.data_folders import is_store
from orchestrator.config.schema import TrainConfig
from orchestrator.data.counted import Counted, refuse_bad_share
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.keys import Notes
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow, uid_parts
from orchestrator.pipeline.derived import critique_rm_config

if TYPE_CHECKING:  # it imports transformers
    from workers.multimodal.prompt_encoder import PromptEncoder


def data_lines(config: TrainConfig) -> list[str]:
    """What the run would learn from and what not, for people.

    On a described cluster the data may be there and not here, and the model a ``config.json``: what cannot be looked at
    is said. Lengths are known where the model's processor is.

    Raises:
        RefusedInput: what the run would refuse.
    """
    if config.embedded_task:
        return ["data: the embedded task's, written by the run"]
    paths = [path for part in config.data.parts for path in (part.path, part.eval_path) if path is not None]
    paths += [one.path for one in config.eval.benchmark]
    if missing := [path for path in paths if not os.path.exists(path)]:
        return [f"data: not looked at, as {missing[0]!r} is not on this machine"]
    if config.model.path is None:
        return ["data: not looked at, as there is no model yet"]
    encoder = _encoder(config)
    with TemporaryDirectory() as folder:  # for pictures that stand in the rows
        look = _offline if config.offline else _online
        lines = look(config, encoder, Path(folder))
    unknown = [] if encoder else ["data: lengths not looked at, as the model folder has no processor"]
    return [*lines, *unknown]


def _encoder(config: TrainConfig) -> "PromptEncoder | None":
    from workers.models.folder import check_model_folder

    try:
        check_model_folder(config.model.folder, trust_remote_code=config.model.trust_remote_code)
    except ValueError:
        return None  # whoever runs on this machine has had it refused
    from orchestrator.cluster.specs import prompt_encoder
    from orchestrator.run.log import quiet_libraries

    quiet_libraries()
    return prompt_encoder(config)


def _online(config: TrainConfig, encoder: "PromptEncoder | None", pictures: Path) -> list[str]:
    from orchestrator.data.prompts import fitting, read_data
    from orchestrator.evaluation.while_training import read_benchmarks
    from orchestrator.preflight import check_labels, check_lengths
    from workers.models.needs import max_positions

    data = read_data(config, pictures=pictures)
    check_labels(config, [*data.train.prompts, *data.held_out])
    if encoder is not None:
        data = fitting(config, encoder, data)
        check_lengths(config, encoder, [*data.train.prompts, *data.held_out])
        most = max_positions(encoder.config)
        measured = read_benchmarks(config, encoder, most=most, pictures=pictures) if config.eval.benchmark else []
        return [*data.lines(), *(line for one in measured for line in one.lines())]
    return list(data.lines())


def _offline(config: TrainConfig, encoder: "PromptEncoder | None", pictures: Path) -> list[str]:
    lines = [f"data: {line}" for line in _learned_from(config, encoder, pictures)]
    if config.measures_margins and config.judge_path is None:
        stage = critique_rm_config(config)
        lines += [f"critique reward model: {line}" for line in _learned_from(stage, encoder, pictures)]
    return [*lines, *(f"held-out data: {line}" for line in _measured_on(config, encoder, pictures))]


def _learned_from(config: TrainConfig, encoder: "PromptEncoder | None", pictures: Path) -> Iterator[str]:
    from orchestrator.data.learnable import look, refuse_unlearnable
    from orchestrator.training.offline import example_encoder

    assert config.offline
    read = _Read(config, config.data.training_path, pictures)
    weighs = not config.measures_margins
    encode = None if encoder is None else example_encoder(config, encoder, read.media_root, weighs_pairs=weighs)
    margin, unfit = config.section(PreferenceSection).score_margin, None if encoder is None else ImageCheck(config)
    found = look(read.instructions(), config.needs, score_margin=margin, unfit=unfit, encode=encode)
    read.refuse_bad_rows()
    of_file = [] if is_store(read.path) else read.bad_rows
    warning = refuse_unlearnable(found, config, bad_rows=of_file)
    yield from found.lines()
    yield from read.lines()
    if warning is not None:
        yield warning


def _measured_on(config: TrainConfig, encoder: "PromptEncoder | None", pictures: Path) -> Iterator[str]:
    from orchestrator.training.offline import example_encoder

    apart = config.data.eval_path
    read = _Read(config, apart or str(config.data.path), pictures)
    if apart is None and not config.data.held_out_frac and not is_store(read.path):
        return
    encode = None if encoder is None else example_encoder(config, encoder, read.media_root, weighs_pairs=False)
    num_rows, left_out = 0, Counted("held-out rows left out")
    for row in read.instructions():
        if apart is not None or row.split == "held_out":
            num_rows += 1
            made = encode and encode(row)
            if isinstance(made, str):
                left_out.add(BadRow(uid_parts(row.uid)[1], made))
    if apart is not None:
        read.refuse_bad_rows()
    if num_rows or apart is not None:
        yield f"{num_rows} rows"
        yield from left_out.lines(num_rows)
    if apart is not None:
        yield from read.lines()


@dataclass(slots=True)
class _Read:
    """A file or a store that passes by."""

    config: TrainConfig
    path: str
    pictures: Path
    """Folder for those that stand in the rows."""
    bad_rows: list[BadRow] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)

    @property
    def media_root(self) -> Path:
        """Folder of the media."""
        from orchestrator.data.source_file import source_file
        from orchestrator.data.stores import given_store

        if is_store(self.path):
            return given_store(self.config, self.path).media_root
        return source_file(self.config, self.path).media_root

    def instructions(self) -> Iterator[Instruction]:
        """The good rows; the others are kept."""
        from orchestrator.data.reading import read_records
        from orchestrator.data.source_file import source_file
        from orchestrator.data.stores import given_store

        if is_store(self.path):
            store = given_store(self.config, self.path)
            self.bad_rows, self.notes = store.bad_rows(), store.manifest.notes
            yield from store.rows()
            return
        source = source_file(self.config, self.path, pictures=self.pictures)
        frac = self.config.data.held_out_frac
        for record in read_records(source, held_out_frac=frac, notes=self.notes):
            if isinstance(record, BadRow):
                self.bad_rows.append(record)
            else:
                yield record

    def refuse_bad_rows(self) -> None:
        """Stop where an import would; the bad rows of a store were accepted when it was made.

        Raises:
            RefusedInput: more bad rows than ``data.max_bad_frac``.
        """
        if not is_store(self.path):
            bound, good = self.config.data.max_bad_frac, self.notes.num_rows
            name, option = self.path, "data.max_bad_frac"
            refuse_bad_share(self.bad_rows, num_good=good, name=name, option=option, max_bad_frac=bound)

    def lines(self) -> Iterator[str]:
        """Bad rows, and the keys that nobody reads."""
        yield from Counted("bad rows", self.bad_rows).lines(self.notes.num_rows + len(self.bad_rows))
        yield from self.notes.lines()
