"""What two ranks gather from a sharded policy, bucket by bucket, is what one rank has whole."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.integration.pools import policy_spec
from workers.models import lora
from workers.models.lora import LoraSpec
from workers.policy import PolicyWorker
from workers.weight_sync.manifest import tensor_digest
from workers.weight_sync.shared_memory import clear_exchange

pytestmark = pytest.mark.integration

_BUCKET = 64 << 10
_LORA = LoraSpec(rank=2, alpha=4, seed=0)


def _announce(rank: int, port: int, model: Path, told: Path, bucket: int, adapted: bool) -> None:
    lora._BUCKET_BYTES = bucket
    spec = policy_spec(model, zero_stage=3, lora=_LORA if adapted else None)
    worker = PolicyWorker(rank=rank, world_size=2, spec=spec, num_threads=1)
    worker.setup("127.0.0.1", port)
    worker.open_sender(backend="shared_memory", run_id=told.name, address="", port=0, group_size=1)
    gathers: list[tuple[int, int]] = []
    gathered = worker._engine.gathered

    def counted(parameters: list[nn.Parameter]) -> Any:
        size = sum(p.ds_numel * p.element_size() for p in parameters)  # type: ignore[attr-defined]
        gathers.append((len(parameters), size))
        return gathered(parameters)

    worker._engine.gathered = counted  # type: ignore[method-assign]
    manifest = worker.publish(policy_version=0, full=True)
    if manifest is not None:
        told.write_text(json.dumps([manifest.digests, manifest.trained, gathers]))
        clear_exchange(told.name)


def _told(model: Path, told: Path, bucket: int, *, adapted: bool) -> Any:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(  # type: ignore[attr-defined]
        _announce, (port, model, told, bucket, adapted), nprocs=2
    )
    return json.loads(told.read_text())


@pytest.mark.parametrize("adapted", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_buckets_bring_every_name_and_byte(random_model: Path, tmp_path: Path, adapted: bool) -> None:
    digests, trained, gathers = _told(random_model, tmp_path / f"buckets-{adapted}", _BUCKET, adapted=adapted)
    released = {name: tensor_digest(t) for name, t in load_file(random_model / "model.safetensors").items()}
    # Adapters begin as nothing, so that merging them changes no byte.
    assert digests == released
    assert set(trained) < set(released) if adapted else set(trained) == set(released)
    assert 1 < len(gathers) < len(released)
    assert all(size <= _BUCKET or count == 1 or (adapted and count == 3) for count, size in gathers)
