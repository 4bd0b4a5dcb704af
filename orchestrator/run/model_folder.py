"""The model that a run trained: its folder in a checkpoint, and the same as a plain Hugging Face folder."""

import os
import shutil
from pathlib import Path

from orchestrator.errors import RefusedInput
from orchestrator.run.checkpoint_files import DamagedCheckpoint, refuse_changed_files
from orchestrator.run.folder import RunFolder, flush
from workers.models.folder import ADAPTER_CONFIG, check_model_folder, has_reward_head


def export(source: Path, out: Path) -> None:
    """Write ``out``, which appears whole or not at all.

    Args:
        source: Run folder or checkpoint folder.
    Raises:
        RefusedInput: nothing complete to export, a base model that is not there, or ``out`` exists.
    """
    policy = policy_folder(source)
    if out.exists():
        raise RefusedInput(f"{str(out)!r} exists already")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise RefusedInput(f"{str(out)!r} cannot be made: {error.strerror}") from error
    try:
        _fill(partial, policy)
        for file in partial.rglob("*"):
            flush(file)
        partial.rename(out)
        flush(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def policy_folder(source: Path) -> Path:
    """``policy/`` of a checkpoint, or of a run's newest complete one.

    Raises:
        RefusedInput: ``source`` is neither, or holds nothing complete; or the model has changed since it was written.
    """
    if not source.is_dir():
        raise RefusedInput(f"{str(source)!r} is not a folder")
    checkpoint = source
    if (source / "checkpoints").is_dir():
        complete = RunFolder(source).complete_checkpoints()
        if not complete:
            raise RefusedInput(f"the run {str(source)!r} has no complete checkpoint")
        checkpoint = complete[-1]
    # A checkpoint's manifest is written last.
    if not (checkpoint / "policy").is_dir() or not (checkpoint / "manifest.json").is_file():
        raise RefusedInput(f"{str(source)!r} is neither a run folder nor a complete checkpoint")
    try:
        refuse_changed_files(checkpoint, "policy/")
    except DamagedCheckpoint as error:
        raise RefusedInput(f"checkpoint {str(checkpoint)!r} has {error}") from error
    return checkpoint / "policy"


def plain_folder(source: Path) -> Path:
    """What ``policy_folder`` finds, as engines load it: an adapter is merged into its base, in ``merged`` beside it.

    Raises:
        RefusedInput: see ``policy_folder``; or the adapter's base is not there.
    """
    policy = policy_folder(source)
    merged = policy.with_name("merged")
    if not (policy / ADAPTER_CONFIG).is_file():
        return policy
    if not merged.is_dir():
        export(policy.parent, merged)
    return merged


def _fill(target: Path, policy: Path) -> None:
    # Deferred: most refusals can be had without transformers and torch.
    try:
        if (policy / ADAPTER_CONFIG).is_file():
            from orchestrator.run.log import quiet_libraries
            from workers.models.export import export_merged

            quiet_libraries()
            export_merged(policy, target=target)
        else:
            check_model_folder(policy)
            shutil.copytree(policy, target, dirs_exist_ok=True)
        if has_reward_head(target):
            from workers.models.classifier import as_classifier

            as_classifier(target)
    except ValueError as error:
        raise RefusedInput(str(error)) from error
