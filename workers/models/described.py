"""A model by its ``config.json`` alone: its modules on no device, to be counted."""

from pathlib import Path
from typing import Any

_MOST_LAYERS = 10_000
"""Of one stack: on no device each of them is still made."""
_SAID_CHARS = 120


def described_model(path: str | Path) -> Any:
    """The model of a folder without weights.

    Raises:
        ValueError: its configuration describes none that can be made, in one sentence.
    """
    # Deferred: only a dry run and a preflight ask.
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config: Any = AutoConfig.from_pretrained(path)
        _refuse_many_layers(config.to_dict())
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config)
    except Exception as error:  # Whatever a library makes of somebody's numbers.
        said = " ".join(str(error).split())[:_SAID_CHARS]
        file = str(Path(path) / "config.json")
        raise ValueError(f"{file!r} describes no model that can be made: {type(error).__name__}: {said}") from error


def _refuse_many_layers(described: dict[str, Any]) -> None:
    for name, value in described.items():
        if isinstance(value, dict):
            _refuse_many_layers(value)
        elif isinstance(value, int) and ("layers" in name or name == "depth") and value > _MOST_LAYERS:
            raise ValueError(f"{name} = {value}, more than {_MOST_LAYERS}")
