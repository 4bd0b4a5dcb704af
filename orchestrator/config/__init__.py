"""Configuration: what can be set, where each value comes from, and the refusal of everything else."""

from orchestrator.config.load import CliOptions, load_config
from orchestrator.config.options import option_names
from orchestrator.config.schema import TrainConfig, resolved_json

__all__ = [
    "CliOptions",
    "TrainConfig",
    "load_config",
    "option_names",
    "resolved_json",
]
