"""How every run begins: where it stands, and what shows and keeps its figures while it goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.batching import PromptCursor
from orchestrator.config.schema import TrainConfig
from orchestrator.run.checkpoint import Progress, find_checkpoint
from orchestrator.run.console import Console
from orchestrator.run.folder import RunFolder
from orchestrator.run.log import RunLogFormatter, run_log
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


@contextmanager
def started_run(config: TrainConfig, folder: RunFolder, *, fingerprint: str, num_prompts: int) -> Iterator[RunStart]:
    """Find the checkpoint to continue from, drop what came after it, and open console, trackers and log.

    Args:
        fingerprint: Of the training data.
        num_prompts: Rows of the training data.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    cursor = PromptCursor(num_prompts=num_prompts, seed=config.run.seed)
    found = find_checkpoint(folder, config, fingerprint=fingerprint)
    progress = found[1] if found else Progress(step=0, num_updates=0, policy_version=0, cursor=cursor)
    folder.truncate_after(progress.step if found else -1)
    with (
        Console(config.run.steps, title=f"{config.algo} in {folder.root}") as console,
        open_tracker(folder, trackers=config.run.trackers) as tracker,
        run_log(folder.log, run=folder.root.name) as log,
    ):
        console.phase("start workers")
        yield RunStart(
            progress=progress, checkpoint=found[0] if found else None, console=console, tracker=tracker, log=log
        )
