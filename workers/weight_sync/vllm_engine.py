"""The engine's side of every transport, as vLLM's weight-transfer API wants it; registered as a plug-in of vLLM."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine, IPCWeightTransferUpdateInfo
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine, NCCLWeightTransferUpdateInfo
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from workers.weight_sync.manifest import Backend, WeightManifest, has_tied_head, must_set_every_parameter
from workers.weight_sync.places import Given, Places, learned, noted
from workers.weight_sync.shared_memory import WeightReader

BACKENDS: dict[Backend, str] = {"shared_memory": "raylign_shared_memory", "nccl": "raylign_nccl", "ipc": "raylign_ipc"}
"""Each transport's name in vLLM's registry."""


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """Where the file is and what it must contain."""

    path: str
    digests: dict[str, str]
    """Of each tensor, as the trainer announced them."""
    dtypes: list[str]
    shapes: list[list[int]]
    full: bool
    """Every parameter of the model must be among the tensors."""
    policy_version: int


class SharedMemoryEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads published weights into the engine's model, refusing content other than announced."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """No rendezvous is needed."""
        self._reader = WeightReader()
        self._places: Places | None = None
        self._version = -1
        self._reload: tuple[Given, dict[str, Tensor]] | None = None

    def start_weight_update(self) -> None:
        """Nothing yet: what there is to prepare depends on what is sent."""

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Load the tensors once their content is found to be what was announced.

        A version that is sent again is one that was found wanting: vLLM reloads it as it did the first.

        Raises:
            SyncError: a tensor is missing or different, or a full transfer left an engine parameter unset.
        """
        info = update_info
        tensors = dict(self._reader.read(info.path, info.digests, info.dtypes, info.shapes))
        places, self._places = self._places, None
        if places is not None and info.policy_version != self._version and places.cover(tensors, full=info.full):
            self._version = info.policy_version
            places.load(tensors)
            self._places = places
            return
        self._version = info.policy_version
        self._by_reload(tensors, full=info.full)

    def finish_weight_update(self) -> None:
        """Where vLLM reloaded: re-pack what is left, and see where everything is now."""
        if self._reload is None:
            return
        (given, tensors), self._reload = self._reload, None
        with noted(given):
            finalize_layerwise_reload(self.model, self.model_config)
        if current_platform.is_cpu():
            self._places = learned(self.model, given, tensors)

    def _by_reload(self, tensors: dict[str, Tensor], *, full: bool) -> None:
        # Restores checkpoint-shaped parameters: kernels may have re-packed them.
        initialize_layerwise_reload(self.model)
        if current_platform.is_cpu():
            _forget_packed_experts(self.model)
        model: Any = self.model  # every vLLM model has load_weights; torch's Module does not say so
        given: Given = {}
        self._reload = given, tensors
        with noted(given), must_set_every_parameter(model, full=full, tied_head=has_tied_head(self.model_config)):
            model.load_weights(tensors.items())

    def shutdown(self) -> None:
        """The mapping goes with the process."""


def _forget_packed_experts(model: Any) -> None:
    """Let vLLM pack the experts that are to come as it packed the first ones.

    vLLM 0.32 packs a layer's experts for a CPU where it makes their kernel, which it does once: later weights would
    stay as they were sent, and be read as if they had been packed.
    """
    for layer in model.modules():
        method: Any = getattr(layer, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


def register() -> None:
    """Make the transports known to vLLM in this process; also its plug-in entry point for worker processes."""
    device_module = "workers.weight_sync.vllm_engine"
    factory = WeightTransferEngineFactory
    if BACKENDS["shared_memory"] not in factory._registry:
        factory.register_engine(BACKENDS["shared_memory"], SharedMemoryEngine)
        factory.register_engine(BACKENDS["nccl"], device_module, "NcclEngine")
        factory.register_engine(BACKENDS["ipc"], device_module, "IpcEngine")


def update_info(manifest: WeightManifest) -> dict[str, Any]:
    """A manifest as the keyword arguments of its transport's update record."""
    common: dict[str, Any] = {"shapes": [list(shape) for shape in manifest.shapes], "full": manifest.full}
    if manifest.backend == "shared_memory":
        own = {"path": manifest.path, "digests": manifest.digests, "dtypes": list(manifest.dtypes)}
        return common | own | {"policy_version": manifest.policy_version}
    info = common | {"names": list(manifest.digests), "dtype_names": list(manifest.dtypes)}
    return info if manifest.backend == "nccl" else info | {"ipc_handles": list(manifest.ipc_handles)}


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
