"""One loaded base for several roles of a process: each has modules of its own over the same weights.

                weights, loaded once
          ┌────────────┼─────────────┐
     policy's tree  critic's tree  reference's ...       a module tree costs no memory to speak of; each wears an
     + adapter      + adapter      + adapter             adapter of its own, and knows nothing of the others

So nobody switches adapters, and every role computes what it would with a model to itself, operation by operation.
Nobody may train or shard the base: its parameters are the same objects everywhere.
"""

import copy
from dataclasses import replace
from typing import Any

from workers.models.adapters import ModelAdapter
from workers.models.loading import ModelSpec, load_model, worn


class SharedBase:
    """Loads as ``load_model`` does, but the weights of one base only once."""

    def __init__(self) -> None:
        self._loaded: tuple[ModelSpec, Any, ModelAdapter] | None = None

    def __call__(self, spec: ModelSpec) -> tuple[Any, ModelAdapter]:
        """A model of its own for whoever asks, on the base that all share.

        Raises:
            ValueError: it is of another base, or in another format, than the first; or see ``load_model``.
        """
        asked = replace(spec, adapter=None, max_pixels=None)
        if self._loaded is None:
            self._loaded = asked, *load_model(asked)
        known, base, architecture = self._loaded
        if asked != known:
            raise ValueError(f"{asked} cannot stand on the base that is loaded, {known}")
        return worn(_on_the_same_weights(base), spec.adapter), architecture


def _on_the_same_weights(model: Any) -> Any:
    """A copy of the modules, whose parameters and buffers are those of ``model``."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
