"""A vision tower that nobody trains sees an image once a step, whoever asks, however often.

    old log-probs ─┐                     ┌─ kept: what the tower says of one image, before the bridge
    every update  ─┼─► images of a batch ┤
    tenants ...   ─┘                     └─ missing: the tower runs, on this image alone
                                                │
                                            the bridge, trained or not, runs every time

An image is always seen alone, so its features are the same to the last bit whether they were kept or are made again,
beside whatever else: neither a resume nor a bound on memory can change what is learned.
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.models.adapters import ModelAdapter
from workers.models.vision_tower import VisionTower
from workers.multimodal.collate import Batch, ImageRows
from workers.multimodal.step_cache import StepCache

KEPT_BYTES = 2 << 30
"""Of features on a device. In bfloat16, Qwen2.5-VL's take 10 KiB a token of an image."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a tower says of one image."""

    kind: type[Any]
    """Of its output."""
    parts: dict[tuple[str, int | None], Tensor]
    """By field, and place in it where that is a list. Inside a tower with a bridge ``[tokens, patches, width]``."""

    @property
    def num_bytes(self) -> int:
        """Of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())


FeatureCache = StepCache[Features]
_CACHES: weakref.WeakValueDictionary[tuple[int, ...], FeatureCache] = weakref.WeakValueDictionary()
"""By the parameters of a tower: whoever stands on the same base in this process finds the same one."""


def keep_features(module: nn.Module, adapter: ModelAdapter) -> FeatureCache:
    """Let the tower of a module that takes batches see an image once, unless some of the tower is trained.

    Args:
        module: Has the model as ``model``, frozen as far as it will be, and is called with a ``Batch``.
        adapter: The model's record.
    Returns:
        What is kept, for the owner to forget.
    """
    model: Any = module.model
    prefix = None if adapter.tower is None else f"{adapter.tower.path}."
    own = [
        parameter
        for name, parameter in model.named_parameters()
        if prefix is not None and name.startswith(prefix) and adapter.module_of(name) == "vision"
    ]
    key = tuple(map(id, own))
    cache = _CACHES.setdefault(key, FeatureCache(KEPT_BYTES, num_bytes=lambda features: features.num_bytes))
    if adapter.tower is None or any(parameter.requires_grad for parameter in own):
        return cache
    layers = getattr(model.config, "vision_feature_layer", None)
    tower = _FrozenTower(
        model.get_submodule(adapter.tower.path),
        adapter.tower,
        own,
        cache,
        layers=[layers] if isinstance(layers, int) else list(layers or ()),
    )
    module.register_forward_pre_hook(tower.look_at)
    module.register_forward_hook(tower.look_away, always_call=True)
    return cache


class _FrozenTower:
    """Stands in for the forward of one tower while a batch is looked at."""

    def __init__(
        self,
        tower: Any,
        record: VisionTower,
        parameters: Sequence[nn.Parameter],
        cache: FeatureCache,
        *,
        layers: list[int],
    ) -> None:
        self._tower, self._record, self._parameters, self._cache = tower, record, parameters, cache
        self._layers = layers
        self._bridges = [tower.get_submodule(path) for path in record.bridges]
        self._images: tuple[ImageRows, ...] = ()
        self._run = tower.forward
        tower.forward = self._forward

    def look_at(self, module: nn.Module, args: tuple[Batch, Any]) -> None:
        """Before the forward of the module around it."""
        self._images = args[0].images

    def look_away(self, *of_hook: Any) -> None:
        """After it."""
        self._images = ()

    def _forward(self, *args: Any, **options: Any) -> Any:
        if not self._images:  # a rollout on the same model, say
            return self._run(*args, **options)
        found = {image.key: self._cache.find(image.key) for image in self._images}
        missing = [place for place, image in enumerate(self._images) if found[image.key] is None]
        missing = list({self._images[place].key: place for place in missing}.values())
        for turn in range(self._turns(len(missing))):
            # A rank that misses nothing runs all the same where others wait for its share of the parameters.
            place = missing[turn] if turn < len(missing) else 0
            features = self._see(place, args, options)
            if turn < len(missing):
                found[self._images[place].key] = features
                self._cache.keep(self._images[place].key, features)
        return self._joined([features for image in self._images if (features := found[image.key]) is not None])

    def _turns(self, needed: int) -> int:
        """How often the tower runs: where ZeRO-3 shards it, equally often on every rank."""
        distributed = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if not distributed or not hasattr(self._parameters[0], "ds_id"):
            return needed
        most = torch.tensor(needed, device=self._parameters[0].device)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        return int(most)

    def _see(self, place: int, args: tuple[Any, ...], options: dict[str, Any]) -> Features:
        rows = [image.rows for image in self._images]
        start = sum(rows[:place])

        def cut(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if len(value) == sum(rows):
                return value[start : start + rows[place]]
            if len(value) == len(rows):
                return value[place : place + 1]
            raise ValueError(f"a vision tower was given {len(value)} rows for {len(rows)} images of {sum(rows)}")

        with torch.no_grad(), self._before_the_bridges(rows[place]):
            output = self._run(*map(cut, args), **{name: cut(value) for name, value in options.items()})
        parts: dict[tuple[str, int | None], Tensor] = {}
        for name in self._record.gives:
            value = getattr(output, name)
            if isinstance(value, Tensor):
                parts[name, None] = value
            elif value is not None:
                places = self._layers if name == "hidden_states" else range(len(value))
                parts |= {(name, at): value[at] for at in places}
        return Features(type(output), parts)

    @contextmanager
    def _before_the_bridges(self, patches: int) -> Iterator[None]:
        """Bridges inside the tower hand on what they are given, ``[tokens, patches of a token, width]``."""
        inside = [
            one for bridge in self._bridges for one in (bridge if isinstance(bridge, nn.ModuleList) else [bridge])
        ]
        for bridge in inside:
            bridge.forward = lambda given: given.unflatten(0, (patches // self._tower.spatial_merge_size**2, -1))
        try:
            yield
        finally:
            for bridge in inside:
                del bridge.forward

    def _joined(self, seen: list[Features]) -> Any:
        """The tower's output for all images, as if it had seen them together."""
        bridges = dict(zip(self._record.gives, self._bridges, strict=False))
        fields: dict[str, Any] = {}
        for name, at in seen[0].parts:
            value = torch.cat([features.parts[name, at] for features in seen])
            if name in bridges:
                bridge: Any = bridges[name] if at is None else bridges[name][at]
                value = bridge(value.flatten(0, 1))
            if at is None:
                fields[name] = value
            elif name == "hidden_states":  # of some layers alone, which are asked for by their numbers
                fields.setdefault(name, {})[at] = value
            else:
                fields.setdefault(name, []).append(value)
        return seen[0].kind(**fields)
