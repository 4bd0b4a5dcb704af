"""A configuration as a machine keeps it: complete JSON, a fingerprint, and the list of all options."""

import hashlib
import json

from orchestrator.config.options import options
from orchestrator.config.schema import TrainConfig

_CANNOT_CHANGE_RESULTS = {
    "run": {"dir", "resume", "checkpoint_every", "keep_checkpoints", "trackers"},
    "rollout": {"timeout_s"},
}


def option_names() -> list[str]:
    """Dotted name of every option, in the schema's order."""
    return list(options())


def resolved_json(config: TrainConfig) -> str:
    """Every option with its value; ``TrainConfig.model_validate_json`` reads it back."""
    return config.model_dump_json(indent=2) + "\n"


def fingerprint(config: TrainConfig) -> str:
    """SHA-256 of all options that can change what the run computes; a resumed run must match its own."""
    content = config.model_dump(mode="json", exclude=_CANNOT_CHANGE_RESULTS)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
