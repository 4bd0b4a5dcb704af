"""What a transfer announces, and whether it set every parameter of the engine: vLLM's loaders say which they set."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor

Backend = Literal["shared_memory", "nccl", "ipc"]


class SyncError(RuntimeError):
    """A weight transfer that did not bring exactly what was announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """What the trainer published for one policy version."""

    policy_version: int
    digests: dict[str, str]
    """Checkpoint name to ``tensor_digest``, in the order of the transfer."""
    num_bytes: int
    full: bool
    """True where every parameter was sent, False where only the trainable ones were."""
    backend: Backend = "shared_memory"
    trained: tuple[str, ...] = ()
    """Of a full transfer: the tensors that training changes, all of which every transfer that is not full brings."""
    dtypes: tuple[str, ...]
    """Dtype of each tensor, as torch names it."""
    shapes: tuple[tuple[int, ...], ...]
    path: str = ""
    """Shared memory: the file, tensor after tensor."""
    ipc_handles: tuple[dict[str, Any], ...] = ()
    """IPC: for each tensor, GPU UUID to what the engine on that GPU opens it with."""

    @property
    def digest(self) -> str:
        """One digest over all tensors, equal exactly when every name and every byte is."""
        return combined_digest(self.digests)


def joined(manifests: Sequence[WeightManifest | None]) -> WeightManifest:
    """One manifest of what all ranks announced: handles of every GPU.

    Raises:
        SyncError: ranks announce different content.
    """
    told = [m for m in manifests if m is not None]
    if len({m.digest for m in told}) != 1:
        raise SyncError(f"{len(told)} ranks announced {len({m.digest for m in told})} different sets of weights")
    handles = tuple(
        {k: v for part in parts for k, v in part.items()} for parts in zip(*(m.ipc_handles for m in told), strict=True)
    )
    return replace(told[0], ipc_handles=handles)


def tensor_digest(tensor: Tensor) -> str:
    """XXH3 (128 bits) of a tensor's bytes in row-major order.

    It guards against faults, not against an attacker, and runs at the speed of memory where SHA-256 takes seconds.
    """
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return xxhash.xxh3_128_hexdigest(flat.numpy().data)


def dtype_name(dtype: torch.dtype) -> str:
    """The name under which ``torch`` has it."""
    return str(dtype).removeprefix("torch.")


def combined_digest(digests: Mapping[str, str]) -> str:
    """Digest of a name-to-digest table, independent of its order."""
    lines = "".join(f"{name}={digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


class NameLedger:
    """Remembers what an engine is to be sent and refuses a later transfer that brings others.

    The first transfer, a full one, says it for all: what it brought itself, and what training changes.
    """

    def __init__(self) -> None:
        self._names: dict[bool, frozenset[str]] = {}

    def check(self, manifest: WeightManifest) -> None:
        """Compare ``manifest`` with what the first one said of its kind.

        Raises:
            SyncError: names the first tensors missing or new; or the first transfer was not a full one.
        """
        names = frozenset(manifest.digests)
        if not self._names:
            if not manifest.full:
                raise SyncError("the first weight transfer to an engine must be a full one")
            self._names = {True: names, False: frozenset(manifest.trained)}
        expected = self._names[manifest.full]
        missing, extra = sorted(expected - names), sorted(names - expected)
        if missing or extra:
            raise SyncError(
                f"weight transfer {manifest.policy_version}: {len(missing)} tensors not sent {missing[:3]}, "
                f"{len(extra)} not expected {extra[:3]}"
            )

    def next_sets_all(self) -> bool:
        """Whether the next transfer will set every tensor that a full one does: nothing before it needs to be kept."""
        return not self._names or self._names[True] <= self._names[False]


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
