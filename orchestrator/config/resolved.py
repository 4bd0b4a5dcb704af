"""A configuration as a machine keeps it: complete JSON, and the list of all options."""

from orchestrator.config.options import options
from orchestrator.config.schema import TrainConfig


def option_names() -> list[str]:
    """Dotted name of every option, in the schema's order."""
    return list(options())


def resolved_json(config: TrainConfig) -> str:
    """Every option with its value; ``TrainConfig.model_validate_json`` reads it back."""
    return config.model_dump_json(indent=2) + "\n"
