"""Weights from GPU to GPU through vLLM's own transfer engines: NCCL between GPUs, CUDA IPC on the same ones."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo, NCCLTrainerWeightTransferEngine

from workers.weight_sync.manifest import WeightManifest, dtype_name, tensor_digest
from workers.weight_sync.senders import Named


class AnnouncedSource(WeightSource):
    """Replays a pass whose names, dtypes, shapes and content were announced."""

    def __init__(self) -> None:
        self._named: Named = lambda: ()
        self._metadata: list[ParamMeta] = []
        self._digests: dict[str, str] = {}

    def announce(self, named: Named) -> None:
        """Walk the tensors once and remember what they are."""
        self._named, self._metadata, self._digests = named, [], {}
        for name, tensor in named():
            self._metadata.append(ParamMeta(name, tensor.dtype, tuple(tensor.shape)))
            self._digests[name] = tensor_digest(tensor)

    def manifest(
        self,
        backend: Literal["nccl", "ipc"],
        *,
        policy_version: int,
        full: bool,
        ipc_handles: tuple[dict[str, Any], ...] = (),
    ) -> WeightManifest:
        """What the engines are told."""
        return WeightManifest(
            backend=backend,
            policy_version=policy_version,
            digests=self._digests,
            dtypes=tuple(dtype_name(m.dtype) for m in self._metadata),
            shapes=tuple(tuple(m.shape) for m in self._metadata),
            ipc_handles=ipc_handles,
            num_bytes=sum(m.dtype.itemsize * torch.Size(m.shape).numel() for m in self._metadata),
            full=full,
        )

    def metadata(self) -> list[ParamMeta]:
        """Names, dtypes and shapes, in the order of a pass."""
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._named()


class NcclSender:
    """Rank 0 broadcasts to every engine worker, in a group of their own."""

    def __init__(self, *, rank: int, master_address: str, master_port: int, group_size: int) -> None:
        self._rank = rank
        self._source = AnnouncedSource()
        self._engine = NCCLTrainerWeightTransferEngine.trainer_init(
            NCCLTrainerInitInfo(
                master_address=master_address, master_port=master_port, world_size=group_size, rank=rank
            ),
            client=_DriverLed(),
            source=self._source,
        )

    def publish(self, named: Named, *, policy_version: int, full: bool) -> WeightManifest | None:
        """Announce without moving; ``send`` repeats the pass."""
        self._source.announce(named)
        return self._source.manifest("nccl", policy_version=policy_version, full=full) if self._rank == 0 else None

    def send(self) -> None:
        """Broadcast; returns once the engines have received."""
        self._engine.send_weights()


class IpcSender:
    """Engines on the same GPUs read this rank's memory; one whole copy stays on every GPU until ``release``."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, Tensor]] = []

    def publish(self, named: Named, *, policy_version: int, full: bool) -> WeightManifest | None:
        """Announce this GPU's handles; the driver joins those of all ranks."""
        # Copies: under ZeRO-3 a gathered tensor is gone as soon as the pass moves on.
        self._kept = [(name, tensor.detach().clone().contiguous()) for name, tensor in named()]
        torch.cuda.synchronize()
        source = AnnouncedSource()
        source.announce(lambda: self._kept)
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        handles = tuple({uuid: reduce_tensor(tensor)[1]} for _, tensor in self._kept)
        return source.manifest("ipc", policy_version=policy_version, full=full, ipc_handles=handles)

    def release(self) -> None:
        """Drop the copy."""
        self._kept = []
        torch.cuda.ipc_collect()


class _DriverLed:
    """vLLM's trainer engine would call the inference side itself; here the driver does, at the same time."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None: ...

    def start_weight_update(self) -> None: ...

    def update_weights(self, update_info: Any) -> None: ...

    def finish_weight_update(self, weight_version: str | None = None) -> None: ...
