"""The stores of an offline run: opened or imported, checked from end to end before anything is started."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from algorithms.kto import kto_weight_warning
from algorithms.preference_registry import PreferenceAlgorithm
from orchestrator.config.schema import TrainConfig
from orchestrator.datasets.dataset import BadRow, refuse_bad_share, uid_parts
from orchestrator.errors import RefusedInput
from orchestrator.image_check import ImageCheck
from orchestrator.offline.choice import choose
from orchestrator.preference_store.importing import SourceFile, file_sha256, import_file
from orchestrator.preference_store.manifest import MANIFEST_FILE
from orchestrator.preference_store.records import SPLITS, Instruction, Split
from orchestrator.preference_store.side_tables import SideTable
from orchestrator.preference_store.store import PreferenceStore
from orchestrator.run.folder import RunFolder
from orchestrator.run.manifest import DataCounts

MOST_HELD_OUT = 1024
"""Instructions of an evaluation; more would only slow it down."""
_FEWEST_LABELLED = 2
"""With one instruction every response would be taken for a stranger to its own prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineData:
    """What an offline run learns from and is measured on."""

    train: PreferenceStore
    held_out_store: PreferenceStore
    """Where the held-out instructions come from: another store, or the same."""
    held_out_splits: tuple[Split, ...]
    num_unusable: int
    """Instructions of the training split that make nothing to learn from."""
    warning: str | None
    """What a person should know before the run."""

    @property
    def counts(self) -> DataCounts:
        """Rows of the data, as a run's manifest has them."""
        return DataCounts(
            num_train=self.train.num_instructions("train"),
            num_bad_rows=self.train.manifest.counts.bad_rows + self.num_unusable,
            num_held_out=sum(map(self.held_out_store.num_instructions, self.held_out_splits)),
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
    algorithm, data = config.offline, config.data
    assert algorithm is not None and data.path is not None
    train = _store(config, data.path, folder.root / "store")
    num_unusable, warning = _look_at_all(train, algorithm, config)
    apart = None if data.eval_path is None else _store(config, data.eval_path, folder.root / "eval_store")
    return OfflineData(
        train=train,
        held_out_store=apart or train,
        held_out_splits=SPLITS if apart else ("held_out",),
        num_unusable=num_unusable,
        warning=warning,
    )


def held_out_rows(data: OfflineData, *, side_tables: Mapping[str, SideTable]) -> list[Instruction]:
    """Held-out instructions, the same ones every time: a sample where there are very many.

    Raises:
        RefusedInput: the store is damaged, or a side table is not complete.
    """
    splits = (data.held_out_store.iterate(split, seed=0, side_tables=side_tables) for split in data.held_out_splits)
    return list(islice(chain.from_iterable(splits), MOST_HELD_OUT))


def _store(config: TrainConfig, path: str, imported: Path) -> PreferenceStore:
    """The store at ``path``, or the one that the file there becomes."""
    media_root = None if config.data.media_root is None else Path(config.data.media_root)
    held_out_frac = config.data.held_out_frac
    if Path(path).is_dir():
        store = PreferenceStore(Path(path), media_root=media_root)
        if held_out_frac not in (0.0, store.manifest.held_out_frac):
            raise RefusedInput(_split_already(path, store, held_out_frac))
        return store
    source = SourceFile(
        path=Path(path),
        reader=config.data.format,
        media_root=media_root or Path(path).parent,
        max_pixels=config.data.refused_above,
        video_frames=config.data.video_frames,
    )
    if (imported / MANIFEST_FILE).is_file():
        store = PreferenceStore(imported, media_root=source.media_root.resolve())
        if (store.manifest.source_sha256, store.manifest.reader) != (file_sha256(source.path), source.reader):
            raise RefusedInput(
                f"{str(imported)!r} was imported from another file than {path!r}; "
                "use another run.dir or run.resume = 'never'"
            )
        if held_out_frac != store.manifest.held_out_frac:
            raise RefusedInput(_split_already(str(imported), store, held_out_frac))
        return store
    import_file(source, out=imported, held_out_frac=held_out_frac, max_bad_frac=config.data.max_bad_frac)
    return PreferenceStore(imported)


def _split_already(path: str, store: PreferenceStore, held_out_frac: float) -> str:
    return (
        f"data.held_out_frac = {held_out_frac:g}, but the store {path!r} was split at {store.manifest.held_out_frac:g} "
        "when it was made"
    )


def _look_at_all(store: PreferenceStore, algorithm: PreferenceAlgorithm, config: TrainConfig) -> tuple[int, str | None]:
    """Refuse a training split that cannot serve; return how many instructions cannot, and a warning."""
    bad_rows: list[BadRow] = []
    num_good, kinds = 0, Counter[bool]()
    check = ImageCheck(config)
    for row in store.rows():
        if row.split != "train":
            continue
        choice = check(row.media) or choose(row.responses, algorithm, score_margin=config.preference.score_margin)
        if isinstance(choice, str):
            bad_rows.append(BadRow(uid_parts(row.uid)[1], choice))
        else:
            num_good += 1
            kinds.update(choice.desirable)
    refuse_bad_share(
        bad_rows,
        num_good=num_good,
        name=str(config.data.path),
        option="data.max_bad_frac",
        max_bad_frac=config.data.max_bad_frac,
    )
    if algorithm.learns_from != "labels":
        return len(bad_rows), None
    if num_good < _FEWEST_LABELLED:
        raise RefusedInput(
            f"data.path: --algo {config.algo} needs at least {_FEWEST_LABELLED} usable instructions, found {num_good}: "
            "its baseline mixes them"
        )
    if not (kinds[True] and kinds[False]):
        raise RefusedInput(
            f"data.path: --algo {config.algo} needs desirable and undesirable responses, "
            f"found {kinds[True]} and {kinds[False]}"
        )
    settings = config.preference
    return len(bad_rows), kto_weight_warning(
        kinds[True],
        kinds[False],
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
    )
