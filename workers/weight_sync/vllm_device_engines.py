"""vLLM's NCCL and CUDA IPC transfer engines, with the completeness check they lack."""

from dataclasses import dataclass

from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo

from workers.weight_sync.completeness import must_set_every_parameter


@dataclass
class NcclUpdateInfo(NCCLWeightTransferUpdateInfo):
    """vLLM's, and whether every parameter must be among the tensors."""

    full: bool = True


class NcclEngine(NCCLWeightTransferEngine):
    """Receives rank 0's broadcast."""

    update_info_cls = NcclUpdateInfo

    def receive_weights(self, update_info: NcclUpdateInfo) -> None:  # type: ignore[override]
        """Receive and load.

        Raises:
            SyncError: a full transfer left an engine parameter unset.
        """
        with must_set_every_parameter(self.model, full=update_info.full):
            super().receive_weights(update_info)


@dataclass
class IpcUpdateInfo(IPCWeightTransferUpdateInfo):
    """vLLM's, and whether every parameter must be among the tensors."""

    full: bool = True


class IpcEngine(IPCWeightTransferEngine):
    """Reads the memory of the policy rank on the same GPU."""

    update_info_cls = IpcUpdateInfo

    def receive_weights(self, update_info: IpcUpdateInfo) -> None:  # type: ignore[override]
        """Open the handles and load.

        Raises:
            SyncError: a full transfer left an engine parameter unset.
        """
        with must_set_every_parameter(self.model, full=update_info.full):
            super().receive_weights(update_info)
