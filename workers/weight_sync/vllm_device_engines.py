"""vLLM's NCCL and CUDA IPC transfer engines, with the completeness check they lack."""

from dataclasses import dataclass
from typing import Any

from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo

from workers.weight_sync.completeness import has_tied_head, must_set_every_parameter


class _Complete:
    """In front of one of vLLM's engines: a full transfer must set every parameter."""

    model: Any
    model_config: Any

    def receive_weights(self, update_info: Any) -> None:
        """Receive and load.

        Raises:
            SyncError: a full transfer left an engine parameter unset.
        """
        tied = has_tied_head(self.model_config)
        with must_set_every_parameter(self.model, full=update_info.full, tied_head=tied):
            super().receive_weights(update_info)  # type: ignore[misc]


@dataclass
class NcclUpdateInfo(NCCLWeightTransferUpdateInfo):
    """vLLM's, and whether every parameter must be among the tensors."""

    full: bool = True


class NcclEngine(_Complete, NCCLWeightTransferEngine):  # type: ignore[misc]
    """Receives rank 0's broadcast."""

    update_info_cls = NcclUpdateInfo


@dataclass
class IpcUpdateInfo(IPCWeightTransferUpdateInfo):
    """vLLM's, and whether every parameter must be among the tensors."""

    full: bool = True


class IpcEngine(_Complete, IPCWeightTransferEngine):  # type: ignore[misc]
    """Reads the memory of the policy rank on the same GPU."""

    update_info_cls = IpcUpdateInfo
