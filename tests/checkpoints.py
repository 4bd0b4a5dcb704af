"""What a run leaves, without the run: a checkpoint that is whole."""

from pathlib import Path
from typing import Any

from orchestrator.run.checkpoint_files import MANIFEST, sealed
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import Identity


def leave_checkpoint(root: Path, identity: Identity, *, step: int, **fields: Any) -> Path:
    """The checkpoint of a step, of whatever lies in its folder already.

    Args:
        fields: Of the manifest, otherwise than a run would have them.
    """
    checkpoint = RunFolder(root).checkpoint(step)
    (checkpoint / "policy").mkdir(parents=True, exist_ok=True)
    told = {"step": step, "num_updates": step, "policy_version": step, "mismatch_strikes": 0, "identity": identity}
    cursor = {"num_prompts": 9, "seed": 0, "epoch": 0, "position": 0}
    (checkpoint / MANIFEST).write_text(sealed(checkpoint, {**told, "cursor": cursor, **fields}))
    return checkpoint
