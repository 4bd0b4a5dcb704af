"""Did a transfer set every parameter of the engine? vLLM's loaders say which they set; nobody else can know."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from workers.weight_sync.manifest import SyncError

_HEAD, _EMBEDDING = "lm_head", "embed_tokens.weight"


def has_tied_head(model_config: Any) -> bool:
    """Whether a vLLM model's head is its embedding, as vLLM itself reads it: off the language model's configuration."""
    return bool(getattr(model_config.hf_text_config, "tie_word_embeddings", False))


@contextmanager
def must_set_every_parameter(model: Any, *, full: bool, tied_head: bool = False) -> Iterator[None]:
    """Watch the ``load_weights`` of a vLLM model during the block.

    Args:
        full: False where only some tensors are sent; then nothing is required.
        tied_head: The head is the embedding, which alone is sent. vLLM's loaders leave such a head as it is, but
            kernels may have packed it into a copy of its own, which would be the old one: it is loaded here.
    Raises:
        SyncError: the calls left parameters unset.
    """
    expected = {name for name, _ in model.named_parameters()} if full else set()
    original, loaded = model.load_weights, set()

    def recording(weights: Any) -> set[str]:
        ends: dict[str, Tensor] = {}
        names = original(_watched(weights, ends))
        loaded.update(names)
        # A head that is sent is one of its own, whatever the configuration says of it.
        if tied_head and ends.keys() == {_EMBEDDING}:
            loaded.update(_load_head(model, ends[_EMBEDDING]))
        return names

    model.load_weights = recording
    try:
        yield
    finally:
        # The recording is an attribute of the instance; the method is the class's.
        del model.load_weights
    unset = sorted(expected - loaded)
    if unset:
        raise SyncError(f"{len(unset)} engine parameters were not received: {', '.join(unset[:5])}")


def _watched(weights: Iterable[tuple[str, Tensor]], ends: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same weights, the first and the last of a language model kept."""
    for name, tensor in weights:
        for end in (_EMBEDDING, f"{_HEAD}.weight"):
            if name.endswith(end):
                ends[end] = tensor
        yield name, tensor


def _load_head(model: Any, tensor: Tensor) -> set[str]:
    heads = {name: module for name, module in model.named_modules() if name.rpartition(".")[2] == _HEAD}
    for head in heads.values():
        head.weight.weight_loader(head.weight, tensor)
    return {f"{name}.weight" for name in heads}
