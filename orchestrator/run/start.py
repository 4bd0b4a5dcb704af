"""How every run begins: where it stands, and what shows and keeps its figures while it goes on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from algorithms.figures import Figure
from orchestrator.config.schema import TrainConfig
from orchestrator.run.alarm_rules import Row, Watched
from orchestrator.run.alarms import Alarms, replayed, rows_in
from orchestrator.run.checkpoint import Progress, find_checkpoint, identity_of
from orchestrator.run.console import Console
from orchestrator.run.cursor import PromptCursor, SourceCursor
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import Identity, changes
from orchestrator.run.log import RunLogFormatter, run_log
from orchestrator.run.manifest import DataCounts, write_manifest
from orchestrator.run.mirror import Mirror, fetch_newest, open_mirror
from orchestrator.run.tracking import Tracker, open_tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """A run that is about to start its workers."""

    progress: Progress
    checkpoint: Path | None
    """What it continues from; None for a fresh start."""
    console: Console
    tracker: Tracker
    log: RunLogFormatter
    alarms: Alarms
    """Those of the steps that are behind it."""
    mirror: Mirror | None = None


@contextmanager
def started_run(
    config: TrainConfig, folder: RunFolder, *, identity: Identity, counts: DataCounts, figures: Iterable[Figure]
) -> Iterator[RunStart]:
    """Find the checkpoint to continue from, drop what came after it, and open console, trackers and log.

    Args:
        identity: What must not have changed since that checkpoint.
        counts: Of the data.
        figures: What the run will report.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    weights = {source.name: source.weight for source in config.data.source}
    sources = tuple(SourceCursor(name, count, weights[name]) for name, count in counts.num_by_source.items())
    cursor = PromptCursor(num_prompts=counts.num_train, seed=config.run.seed, sources=sources)
    fetched = _fetched(config, folder)
    found = find_checkpoint(folder, config, identity)
    changed = changes(identity_of(folder, found[0]), identity) if found else []
    progress = found[1] if found else Progress(step=0, num_updates=0, policy_version=0, cursor=cursor)
    dropped = folder.truncate_after(progress.step if found else -1)
    write_manifest(config, folder, identity=identity, counts=counts, figures=figures, from_step=progress.step)
    with (
        Console(config.run.steps, title=f"{config.algo} in {folder.root}", plain=config.run.plain) as console,
        open_tracker(folder, trackers=config.run.trackers) as tracker,
        run_log(folder.log, run=folder.root.name) as log,
        _told_mirror(console, folder, config.run.mirror) as mirror,
    ):
        if fetched is not None:
            console.note(f"run.mirror: brought back the checkpoint of step {fetched}")
        if changed:
            console.note(f"continues after step {progress.step} with {', '.join(changed)}{_schedule(config, changed)}")
        for told in dropped if found else ():
            console.note(told)
        alarms = replayed(_kept_rows(folder), Watched.of(config.model_dump(mode="json")))
        console.alarm([], standing=[alarm.told for alarm in alarms.standing.values()])
        console.phase("start workers")
        yield RunStart(
            progress=progress,
            checkpoint=found[0] if found else None,
            console=console,
            tracker=tracker,
            log=log,
            alarms=alarms,
            mirror=mirror,
        )


def _fetched(config: TrainConfig, folder: RunFolder) -> int | None:
    """The step whose checkpoint came back from the mirror, to a run folder that has none."""
    if config.run.mirror is None or config.run.resume == "never" or folder.complete_checkpoints():
        return None
    return fetch_newest(folder, config.run.mirror)


@contextmanager
def _told_mirror(console: Console, folder: RunFolder, address: str | None) -> Iterator[Mirror | None]:
    """The run's mirror, whose last words are said once it is closed."""
    mirror = None
    try:
        with open_mirror(folder, address) as mirror:
            try:
                yield mirror
            finally:
                if mirror is not None:
                    console.phase("copy to run.mirror")
    finally:
        for fault in mirror.said() if mirror is not None else ():
            console.note(fault)


def _kept_rows(folder: RunFolder) -> list[Row]:
    return rows_in(folder.metrics.read_text()) if folder.metrics.is_file() else []


def _schedule(config: TrainConfig, changed: list[str]) -> str:
    longer = any(told.startswith("run.steps ") for told in changed)
    kind = config.optimizer.schedule
    return f"; the {kind} schedule now spans {config.run.steps} steps" if longer and kind != "constant" else ""
