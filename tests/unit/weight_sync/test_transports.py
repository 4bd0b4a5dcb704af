"""What can be known of the GPU transports without a GPU: announcements, their joining, and completeness."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workers.weight_sync.manifest import SyncError, WeightManifest, joined, must_set_every_parameter, tensor_digest

TENSORS = {"head.weight": torch.arange(6.0).reshape(2, 3), "norm.weight": torch.ones(4, dtype=torch.bfloat16)}


def _manifest(**changes: Any) -> WeightManifest:
    digests = {name: tensor_digest(tensor) for name, tensor in TENSORS.items()}
    manifest = WeightManifest(
        policy_version=3,
        digests=digests,
        dtypes=("float32", "bfloat16"),
        shapes=((2, 3), (4,)),
        num_bytes=32,
        full=True,
    )
    return replace(manifest, **changes)


class _Model(nn.Module):
    """Loads by name and says which it knew, as vLLM's models do."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = nn.Linear(3, 2, bias=False), nn.Linear(4, 1, bias=False)

    def load_weights(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        known = dict(self.named_parameters())
        return {name for name, _ in weights if name in known}


def test_handles_of_all_ranks_are_joined_tensor_by_tensor() -> None:
    first = _manifest(backend="ipc", ipc_handles=({"GPU-a": (1,)}, {"GPU-a": (2,)}))
    second = _manifest(backend="ipc", ipc_handles=({"GPU-b": (3,)}, {"GPU-b": (4,)}))
    assert joined([first, second]).ipc_handles == ({"GPU-a": (1,), "GPU-b": (3,)}, {"GPU-a": (2,), "GPU-b": (4,)})


def test_one_rank_may_speak_for_all() -> None:
    assert joined([_manifest(), None, None]) == _manifest()


def test_ranks_that_announce_different_weights_are_refused() -> None:
    other = _manifest(digests={"head.weight": "0" * 64})
    with pytest.raises(SyncError, match="2 ranks announced 2 different sets"):
        joined([_manifest(), other])


def test_a_full_transfer_must_set_every_parameter() -> None:
    model = _Model()
    with must_set_every_parameter(model, full=True):
        # In pieces, as packed transports deliver.
        model.load_weights(iter([("head.weight", torch.zeros(2, 3))]))
        model.load_weights(iter([("norm.weight", torch.zeros(1, 4))]))
    with (
        pytest.raises(SyncError, match=r"1 engine parameters were not received: norm\.weight"),
        must_set_every_parameter(model, full=True),
    ):
        model.load_weights(iter([("head.weight", torch.zeros(2, 3))]))
    assert "load_weights" not in vars(model), "the model should be as it was, also after a failure"


def test_a_partial_transfer_may_leave_parameters_alone() -> None:
    with must_set_every_parameter(_Model(), full=False):
        pass


class _Tied(nn.Module):
    """Leaves its head to the embedding, as vLLM's loaders do; its kernels have a copy of it all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.lm_head.weight.weight_loader = lambda weight, sent: weight.data.copy_(sent)  # type: ignore[attr-defined]

    def load_weights(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        known = dict(self.named_parameters())
        names = {name: known[name].data.copy_(sent) for name, sent in weights}
        return set(names)


def test_a_head_that_is_the_embedding_is_loaded_with_it() -> None:
    model, sent = _Tied(), torch.randn(5, 3)
    with must_set_every_parameter(model, full=True, tied_head=True):
        model.load_weights(iter([("embed_tokens.weight", sent)]))
    assert torch.equal(model.lm_head.weight, sent)
    with (
        pytest.raises(SyncError, match=r"not received: lm_head\.weight"),
        must_set_every_parameter(model, full=True),
    ):
        model.load_weights(iter([("embed_tokens.weight", sent)]))


def test_a_head_that_is_sent_is_kept_whatever_the_configuration_says() -> None:
    model, own = _Tied(), torch.randn(5, 3)
    with must_set_every_parameter(model, full=True, tied_head=True):
        model.load_weights(iter([("embed_tokens.weight", torch.zeros(5, 3)), ("lm_head.weight", own)]))
    assert torch.equal(model.lm_head.weight, own)


def test_an_announcement_is_what_vllm_will_be_told() -> None:
    pytest.importorskip("vllm", reason="vllm is not installed")
    from workers.weight_sync.device_senders import AnnouncedSource
    from workers.weight_sync.vllm_engine import IpcUpdateInfo, NcclUpdateInfo, update_info

    source = AnnouncedSource()
    source.announce(TENSORS.items)
    handles = tuple({"GPU-a": (i,)} for i in range(2))
    nccl = source.manifest("nccl", policy_version=3, full=True)
    ipc = source.manifest("ipc", policy_version=3, full=False, ipc_handles=handles)

    assert nccl.digest == _manifest().digest and nccl.num_bytes == 24 + 8
    assert list(source) == list(TENSORS.items()) == list(source)
    assert [m.name for m in source.metadata()] == list(TENSORS)
    told = NcclUpdateInfo(**update_info(nccl))
    assert (told.names, told.dtype_names, told.shapes, told.full) == (
        list(TENSORS),
        ["float32", "bfloat16"],
        [[2, 3], [4]],
        True,
    )
    told_ipc = IpcUpdateInfo(**update_info(ipc))
    assert told_ipc.ipc_handles == list(handles) and told_ipc.full is False
    # vLLM refuses an update record with fields its class does not have.
    assert set(update_info(ipc)) <= {f.name for f in fields(IpcUpdateInfo)}
