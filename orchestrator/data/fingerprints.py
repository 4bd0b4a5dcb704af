"""What the numbers of a side table depend on: the responses, the model's folder, and the options that shape them."""

from orchestrator.config.schema import TrainConfig
from orchestrator.data.side_tables import Fingerprint
from orchestrator.data.store import PreferenceStore
from orchestrator.run.identity import Identity, option_identity, settled
from workers.models.digests import model_digests
from workers.multimodal.pictures import PREPARATION

_SECTIONS = ("model.", "data.", "batching.")
"""A new option in one of them counts unless it is named below."""
_LIMITS = ("data.max_prompt_tokens", "policy.tokens_per_microbatch")
_ELSEWHERE = ("data.format", "data.reader", "data.held_out_frac", "model.freeze", "model.lora_rank", "model.lora_alpha")
"""The store's fingerprint tells the first three; the others are about training."""


def table_fingerprint(
    config: TrainConfig, store: PreferenceStore | None, model: str, *, asked: str | None = None
) -> Fingerprint:
    """Of numbers that a model gives to a store's responses.

    Args:
        config: Of the run whose workers give them, with its number format settled.
        store: None for responses that are in no store.
        model: Its folder.
        asked: see ``Fingerprint``.
    """
    options = settled(option_identity(config))
    return Fingerprint(
        store=store.manifest.fingerprint if store is not None else "",
        model=model_digests(model),
        settings={name: value for name, value in options.items() if _shapes(name)} | {"pictures": PREPARATION},
        limits=_some(options, *_LIMITS),
        asked=asked,
    )


def _shapes(name: str) -> bool:
    return name.startswith(_SECTIONS) and name not in (*_LIMITS, *_ELSEWHERE)


def _some(options: Identity, *names: str) -> Identity:
    return {name: options[name] for name in names}
