"""The shared-memory transport as a vLLM weight-transfer engine, registered through vLLM's own factory."""

from dataclasses import dataclass
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from workers.weight_sync.manifest import SyncError, combined_digest, tensor_digest
from workers.weight_sync.shared_memory import read

BACKEND = "raylign_shared_memory"


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """Where the files are and what they must contain."""

    paths: list[str]
    digest: str
    """Combined digest the trainer announced."""
    full: bool
    """Every parameter of the model must be among the tensors."""


class SharedMemoryEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads published files into the engine's model, refusing content other than announced."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """No rendezvous is needed."""

    def start_weight_update(self) -> None:
        """Let vLLM restore checkpoint-shaped parameters: kernels may have re-packed them."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Check the files against the announced digest, then load them.

        Raises:
            SyncError: a tensor is missing, extra or different, or a full transfer left an engine parameter unset.
        """
        found = combined_digest({name: tensor_digest(tensor) for name, tensor in read(update_info.paths)})
        if found != update_info.digest:
            raise SyncError(
                f"weights in shared memory have digest {found[:12]}, announced was {update_info.digest[:12]}"
            )
        expected = {name for name, _ in self.model.named_parameters()}
        model: Any = self.model  # every vLLM model has load_weights; torch's Module does not say so
        loaded = model.load_weights(read(update_info.paths))
        unset = sorted(expected - set(loaded)) if update_info.full else []
        if unset:
            raise SyncError(f"{len(unset)} engine parameters were not received: {', '.join(unset[:5])}")

    def finish_weight_update(self) -> None:
        """Re-pack the kernels' weights."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing is kept open."""


def register() -> None:
    """Make the backend known to vLLM in this process; also its plug-in entry point for worker processes."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
