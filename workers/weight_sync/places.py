"""Where each tensor of a transfer ends up in an engine on a CPU: seen once in vLLM's own reload, then written directly.

A reload allocates every layer anew, fills it, packs it for oneDNN and copies it back. Its first run tells which tensors
a layer is made of; what they are believed to become is compared with what vLLM made of them, value by value, so that
nothing is placed on a guess. A model of which one tensor is not understood is reloaded by vLLM every time.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import layerwise

from workers.weight_sync.manifest import SyncError

_log = logging.getLogger(__name__)
Given = dict[nn.Module, list[tuple[str, Any, Tensor]]]
"""For each layer: the name of a parameter or buffer, which part of it, and the tensor that it was loaded from."""
_PACKING = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)
_UNKNOWN = torch.empty(0)
"""In place of what a loader takes under another name."""
_SHARDS = {"q": 0, "k": 1, "v": 2}


@contextmanager
def noted(given: Given) -> Iterator[None]:
    """Note in ``given`` what vLLM's reload makes layers of during the block."""
    original = layerwise._layerwise_process

    def process(layer: nn.Module, info: Any) -> None:
        arguments = [(name, bound.arguments) for name, bound in info.loaded_weights]
        given[layer] = [(name, a.get("loaded_shard_id"), a.get("loaded_weight", _UNKNOWN)) for name, a in arguments]
        original(layer, info)

    layerwise._layerwise_process = process
    try:
        yield
    finally:
        layerwise._layerwise_process = original


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A parameter or buffer of a layer, and the tensors that are its rows."""

    layer: Any
    name: str
    sources: tuple[str, ...]
    packs: Any
    """What packs it for the kernels; None where they read it as it is."""
    alone: bool
    """The kernels have the only copy, in a layout of their own."""

    def take(self, sent: list[Tensor]) -> None:
        """
        Raises:
            SyncError: vLLM did not pack what it packed before.
        """
        if self.alone:
            # vLLM packs what it finds here, and leaves nothing.
            self.layer.weight = nn.Parameter(_rows(sent), requires_grad=False)
        else:
            held, begin = getattr(self.layer, self.name).data, 0
            for tensor in sent:
                held[begin : begin + len(tensor)].copy_(tensor)
                begin += len(tensor)
        if self.packs is None:
            return
        # Its memory is given back first, to be packed into again: pages that were touched before cost a third.
        self.layer.cpu_linear = None
        self.packs.process_weights_after_loading(self.layer)
        if self.alone and self.layer.weight.numel():
            raise SyncError(f"vLLM did not pack {self.sources[0]!r}, which it packed before")

    def holds(self, sent: list[Tensor]) -> bool:
        """Whether vLLM's reload made of ``sent`` what ``take`` would."""
        rows, held = _rows(sent), getattr(self.layer, self.name).data
        if not self.alone:
            # Rows beyond are the padding of a vocabulary, which no transfer changes.
            return held.shape[1:] == rows.shape[1:] and torch.equal(held[: len(rows)], rows.to(held.dtype))
        if rows.shape != _packed_shape(self.layer):
            # oneDNN reads as many columns as it packed, whatever it is handed.
            return False
        drawn = torch.randn(3, rows.shape[-1], generator=torch.Generator().manual_seed(0)).to(rows.dtype)
        found, wanted = self.layer.cpu_linear(drawn, held, None), nn.functional.linear(drawn, rows)
        # Sums in another order; rows in another order would be off by as much as there is.
        bound = max(1e-4, 8 * torch.finfo(rows.dtype).eps) * float(wanted.abs().max())
        return found.shape == wanted.shape and float((found - wanted).abs().max()) <= bound


class Places:
    """The way of every tensor into one model."""

    def __init__(self, places: list[_Place]) -> None:
        self._places = places
        self._names = {name for place in places for name in place.sources}

    def cover(self, names: Collection[str], *, full: bool) -> bool:
        """Whether these tensors are all that the model has; where not ``full`` is asked, all of each layer they are in.

        A bias may stay behind: it is frozen beside adapters. Any other part of a layer that is missing was lost.
        """
        sent = set(names)
        if full or not sent <= self._names:
            return sent == self._names
        touched = {id(p.layer) for p in self._places if not sent.isdisjoint(p.sources)}
        return all(
            sent.issuperset(p.sources) or (p.name == "bias" and sent.isdisjoint(p.sources))
            for p in self._places
            if id(p.layer) in touched
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors, which ``cover`` said yes to, over what the model holds.

        Raises:
            SyncError: vLLM did not pack what it packed before.
        """
        with torch.no_grad():
            for place in self._places:
                if place.sources[0] in tensors:
                    place.take([tensors[name] for name in place.sources])


def learned(model: nn.Module, given: Given, tensors: Mapping[str, Tensor]) -> Places | None:
    """The places of ``tensors`` in ``model`` after a reload that made its layers of what was ``given``.

    Returns:
        None where a tensor, or a part of the model, is not understood, or a kernel refuses it.
    """
    try:
        return _learned(model, given, tensors)
    except RuntimeError as error:
        # Raised from here it would leave vLLM in the middle of an update, which refuses every later one.
        _log.warning("weights go through vLLM's own reload: %s", error)
        return None


def _learned(model: nn.Module, given: Given, tensors: Mapping[str, Tensor]) -> Places | None:
    names = {_identity(tensor): name for name, tensor in tensors.items()}
    places: list[_Place] = []
    for layer, parts in given.items():
        for name in {name: None for name, _, _ in parts}:
            mine = sorted((_order(shard), index, t) for index, (n, shard, t) in enumerate(parts) if n == name)
            sources = [names.get(_identity(t)) for _, _, t in mine]
            place = _place(layer, name, sources)
            if place is None or not place.holds([t for _, _, t in mine]):
                return None
            places.append(place)
    # A bias is written before the weight that is packed beside it.
    places.sort(key=lambda place: place.packs is not None)
    reached = {id(getattr(p.layer, p.name)) for p in places}
    if any(id(parameter) not in reached for parameter in model.parameters()) or _derives(model):
        return None
    return Places(places) if {n for p in places for n in p.sources} == set(tensors) else None


def _place(layer: Any, name: str, sources: list[str | None]) -> _Place | None:
    method = getattr(layer, "quant_method", None)
    known = tuple(source for source in sources if source is not None)
    if len(known) < len(sources) or (method is not None and type(method) not in _PACKING):
        return None
    packs = method if name == "weight" else None
    alone = packs is not None and layer.weight.numel() == 0
    return _Place(layer=layer, name=name, sources=known, packs=packs, alone=alone)


def _packed_shape(layer: Any) -> tuple[int, int]:
    """Rows and columns of a layer whose packed weight tells neither; of a worker's own share under parallelism."""
    columns = getattr(layer, "input_size_per_partition", None) or getattr(layer, "input_size", 0)
    return sum(getattr(layer, "output_partition_sizes", ())), columns


def _derives(model: nn.Module) -> bool:
    """Whether an attention keeps something computed from weights, as MLA does from its ``kv_b_proj``."""
    return any(hasattr(layer, "kv_b_proj") for layer in model.modules())


def _identity(tensor: Tensor) -> tuple[int, torch.Size, torch.dtype]:
    return tensor.data_ptr(), tensor.shape, tensor.dtype


def _order(shard: Any) -> int:
    return shard if isinstance(shard, int) else _SHARDS.get(shard, 0)


def _rows(parts: list[Tensor]) -> Tensor:
    """The parts as one; where they follow each other in memory, as gate and up do in the trainer's file, not a copy."""
    first = parts[0]
    if len(parts) == 1:
        return first
    ends = accumulate((part.nbytes for part in parts[:-1]), initial=first.data_ptr())
    if all(_follows(part, first, end) for part, end in zip(parts, ends, strict=True)):
        return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())
    return torch.cat(parts)


def _follows(part: Tensor, first: Tensor, end: int) -> bool:
    alike = (part.dtype, part.shape[1:]) == (first.dtype, first.shape[1:]) and part.is_contiguous()
    same_memory = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
    return alike and same_memory and part.data_ptr() == end
