"""The section of the run as a whole. The docstring under a field is its help on the command line."""

from typing import Literal

from pydantic import Field

from algorithms.settings import Count, GivenPath, Seconds, Section, Text, Times


class RunSection(Section):
    """The run as a whole."""

    dir: GivenPath = "runs/<algo>"
    """Run folder; <algo> stands for the algorithm's name."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything random in the run."""
    steps: Count = 1000
    """Steps to train: one rollout and its updates, or one optimizer step for sft."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Continue from the run folder's last checkpoint: if there is one, never, or refuse to start without one."""
    checkpoint_every: Count = 25
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints to keep."""
    eval_every: Count = 25
    """Steps between evaluations on held-out data."""
    max_restarts: Times = 3
    """Times the policy is started again from the last checkpoint after a rank was lost; engines are replaced always."""
    silent_after_s: Seconds = 120.0
    """A worker whose last heartbeat is older is lost, seconds."""
    start_timeout_s: Seconds = 600.0
    """Longest time from a worker's start to its first heartbeat, and to its being ready, seconds."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = Field(
        default=("tensorboard",), strict=False
    )
    """Trackers that get every metric beside metrics.jsonl, and a few held-out answers with their images; all write into
    the run folder, but trackio, which keeps all runs in TRACKIO_DIR."""
    alarms: Literal["warn", "stop"] = "warn"
    """When figures say that the run collapsed, is paid nothing or cannot be read: tell it, or stop as a guard does."""
    plain: bool = False
    """One line a step, without colours and without a panel, also on a terminal; --plain says the same."""
    mirror: Text | None = None
    """Address that checkpoints are copied to beside the run, anything that fsspec can write to, such as s3://bucket/runs;
    a run folder without a checkpoint continues from the copy. Credentials stay in the environment."""
