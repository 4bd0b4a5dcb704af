"""The stores of an offline run: opened or imported, checked from end to end before anything is started."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from algorithms.preference import PreferenceSection
from orchestrator.config.data_folders import is_store
from orchestrator.config.schema import TrainConfig
from orchestrator.data.counted import Counted, unknown_keys
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.learnable import Encode, Learnable, look, refuse_unlearnable
from orchestrator.data.readers import reader_of
from orchestrator.data.records import SPLITS, Instruction, Split
from orchestrator.data.side_tables import SideTable
from orchestrator.data.source_file import source_file
from orchestrator.data.store import PreferenceStore
from orchestrator.data.store_files import MANIFEST_FILE
from orchestrator.data.writer import import_file
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.run.manifest import DataCounts

MOST_HELD_OUT = 1024
"""Instructions of an evaluation; more would only slow it down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineData:
    """What an offline run learns from and is measured on."""

    train: PreferenceStore
    held_out_store: PreferenceStore
    """Where the held-out instructions come from: another store, or the same."""
    held_out_splits: tuple[Split, ...]
    learnable: Learnable
    """What of the training split is learned from and what not."""
    warning: str | None
    """What a person should know before the run."""

    def lines(self) -> Iterator[str]:
        """What is learned from and what not, for people."""
        yield from self._bad_rows().lines(self._num_read())
        yield from self.learnable.lines()
        yield from self.train.manifest.notes.lines()
        if self.warning is not None:
            yield self.warning

    def _data_counts(self) -> dict[str, Any]:
        return {
            "bad_rows": self._bad_rows().to_json(self._num_read()),
            **self.learnable.to_json(),
            "unknown_keys": unknown_keys(self.train.manifest.notes),
        }

    def _bad_rows(self) -> Counted:
        return Counted("bad rows", self.train.bad_rows())

    def _num_read(self) -> int:
        manifest = self.train.manifest
        return manifest.notes.num_rows + manifest.counts.bad_rows

    @property
    def counts(self) -> DataCounts:
        """Rows of the data, as a run's manifest has them."""
        return DataCounts(
            num_train=self.train.num_instructions("train"),
            num_bad_rows=self.train.manifest.counts.bad_rows + len(self.learnable.unused),
            num_held_out=sum(map(self.held_out_store.num_instructions, self.held_out_splits)),
            data_counts=self._data_counts(),
        )

    @property
    def by_role(self) -> dict[str, PreferenceStore]:
        """The stores by what they are for; a store that is for both is the training one."""
        if self.held_out_store is self.train:
            return {"train": self.train}
        return {"train": self.train, "held_out": self.held_out_store}


def open_data(config: TrainConfig, folder: RunFolder) -> OfflineData:
    """Open the store, or import the file into the run folder, and look at every instruction.

    Raises:
        RefusedInput: from the reader or the store; a store that was split otherwise than ``data.held_out_frac``; more
            unusable instructions than ``data.max_bad_frac``; KTO with one instruction or one kind of response only.
    """
    data = config.data
    train = _store(config, data.training_path, folder.root / "store")
    learnable, warning = _looked_at(config, train)
    apart = None if data.eval_path is None else _store(config, data.eval_path, folder.root / "eval_store")
    return OfflineData(
        train=train,
        held_out_store=apart or train,
        held_out_splits=SPLITS if apart else ("held_out",),
        learnable=learnable,
        warning=warning,
    )


def measured(data: OfflineData, config: TrainConfig, encode: Encode) -> OfflineData:
    """The same, with what is too long known too.

    Args:
        encode: Makes examples of the training rows.
    Raises:
        RefusedInput: see ``refuse_unlearnable``.
    """
    learnable, warning = _looked_at(config, data.train, encode)
    return replace(data, learnable=learnable, warning=warning)


def held_out_rows(data: OfflineData, *, side_tables: Mapping[str, SideTable]) -> list[Instruction]:
    """Held-out instructions, the same ones every time: a sample where there are very many.

    Raises:
        RefusedInput: the store is damaged, or a side table is not complete.
    """
    splits = (data.held_out_store.iterate(split, seed=0, side_tables=side_tables) for split in data.held_out_splits)
    return list(islice(chain.from_iterable(splits), MOST_HELD_OUT))


def _store(config: TrainConfig, path: str, imported: Path) -> PreferenceStore:
    """The store at ``path``, or the one that the file there becomes."""
    held_out_frac = config.data.held_out_frac
    if is_store(path):
        return given_store(config, path)
    source, facts = source_file(config, path), config.data.facts
    if (imported / MANIFEST_FILE).is_file():
        store = PreferenceStore(imported, media_root=source.media_root.resolve())
        same = (source.sha256, reader_of(source.read_by).name)
        if (store.manifest.source_sha256, store.manifest.reader) != same:
            raise RefusedInput(
                f"{str(imported)!r} was imported from another file than {path!r}{' with its facts' * bool(facts)}; "
                "use another run.dir or run.resume = 'never'"
            )
        if held_out_frac != store.manifest.held_out_frac:
            raise RefusedInput(_split_already(str(imported), store, held_out_frac))
        return store
    import_file(
        source,
        out=imported,
        held_out_frac=held_out_frac,
        max_bad_frac=config.data.max_bad_frac,
        option="data.max_bad_frac",
    )
    return PreferenceStore(imported)


def _looked_at(
    config: TrainConfig, store: PreferenceStore, encode: Encode | None = None
) -> tuple[Learnable, str | None]:
    """What is learned from, and what a person should know of the rest."""
    assert config.offline
    margin, unfit = config.section(PreferenceSection).score_margin, ImageCheck(config)
    learnable = look(store.rows(), config.needs, score_margin=margin, unfit=unfit, encode=encode)
    # The bad rows of a store that somebody made before the run were accepted then.
    bad_rows = [] if is_store(str(config.data.path)) else store.bad_rows()
    return learnable, refuse_unlearnable(learnable, config, bad_rows=bad_rows)


def given_store(config: TrainConfig, path: str) -> PreferenceStore:
    """The store that somebody made before the run.

    Raises:
        RefusedInput: it cannot be opened, or was split otherwise than ``data.held_out_frac``, or has its facts already.
    """
    if config.data.facts:
        raise RefusedInput(
            f"data.facts = {config.data.facts[0]!r}, but the store {path!r} has the facts that it was made with: "
            "import its file again, with --facts"
        )
    media_root = None if config.data.media_root is None else Path(config.data.media_root)
    store = PreferenceStore(Path(path), media_root=media_root)
    if config.data.held_out_frac not in (0.0, store.manifest.held_out_frac):
        raise RefusedInput(_split_already(path, store, config.data.held_out_frac))
    return store


def _split_already(path: str, store: PreferenceStore, held_out_frac: float) -> str:
    return (
        f"data.held_out_frac = {held_out_frac:g}, but the store {path!r} was split at {store.manifest.held_out_frac:g} "
        "when it was made"
    )
