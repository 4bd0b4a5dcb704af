"""What a reward service has answered: a reward for every item that was asked about, whatever the bytes are.

A service may be anybody's. An answer that is not of the wire format gives nobody a reward: each item says why it has
none, and the rewards beside it count.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from orchestrator.rewards.reward import Reward, RewardStatus, failed_reward, one_line
from orchestrator.run.rollout_store import OWN_COLUMNS

LOOKED_AT = 1 << 16
"""Bytes of an answer that is none which are looked at; far fewer are shown."""
_LARGEST_FLOAT32 = 3.4e38
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TAKEN = {"mean", *OWN_COLUMNS}
"""``reward/mean`` is the reward's own."""
_MOST_PARTS = 64


def _fits(value: float) -> float:
    if abs(value) > _LARGEST_FLOAT32:
        raise ValueError("is beyond what a float32 holds")
    return value


Number = Annotated[float, Field(strict=True, allow_inf_nan=False), AfterValidator(_fits)]


def _named(parts: Any) -> Any:
    """Without keys that no figure and no column could be named after: those are a service's own affair."""
    if not isinstance(parts, dict):
        return parts
    return {name: value for name, value in parts.items() if _NAME.fullmatch(name) and name not in _TAKEN}


_WEIGHTS = TypeAdapter(dict[str, Number])


class _Item(BaseModel):
    """One answer; keys of a service's own are its own affair."""

    model_config = ConfigDict(strict=True)

    reward: Number | None
    status: RewardStatus
    parts: Annotated[dict[str, Number | None], BeforeValidator(_named), Field(max_length=_MOST_PARTS)] | None = None
    detail: Any = None
    is_final: bool = False

    @model_validator(mode="after")
    def _has_a_value(self) -> "_Item":
        if self.reward is None and self.status != "failed":
            raise ValueError(f"status {self.status!r} without a reward")
        return self


def read_rewards(body: bytes, asked: Iterable[str], *, told: Callable[[str], str] = one_line) -> dict[str, Reward]:
    """Rewards by id of all that were ``asked`` about; ids that nobody asked about are passed over.

    Args:
        told: Makes the service's words fit to be shown; it gets all of them, for what it takes out may stand anywhere.
    """
    wanted = list(asked)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        why = f"the service answered what is not JSON: {_shown(body, told)}"
        return dict.fromkeys(wanted, failed_reward(why))
    items = answer.get("items") if isinstance(answer, dict) else None
    if not isinstance(items, list):
        why = f"the service's answer holds no list of items: {_shown(body, told)}"
        return dict.fromkeys(wanted, failed_reward(why))
    weights = _weights(answer.get("weights"))
    named = [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]
    times, by_id = Counter(item["id"] for item in named), {item["id"]: item for item in named}
    return {uid: _reward(uid, times[uid], by_id, weights, told) for uid in wanted}


def _weights(told: Any) -> dict[str, float]:
    """What each part counts; nothing where that cannot be read, as from a service that does not say."""
    try:
        return _WEIGHTS.validate_python(told or {})
    except ValidationError:
        return {}


def _reward(
    uid: str, times: int, by_id: dict[str, dict[str, Any]], weights: dict[str, float], told: Callable[[str], str]
) -> Reward:
    if times == 0:
        others = f"; it answered about {told(repr(min(by_id)))}" if by_id else ""
        return failed_reward(f"the service left this item out{others}")
    if times > 1:
        return failed_reward(f"the service answered {times} times about this item")
    try:
        item = _Item.model_validate(by_id[uid])
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "item"
        value = f" (got {told(str(problem['input'])[:LOOKED_AT])!r})" if not isinstance(problem["input"], dict) else ""
        return failed_reward(f"the service's answer: {field}: {problem['msg']}{value}")
    detail = told(item.detail) if isinstance(item.detail, str) else None
    parts = item.parts or {}
    return Reward(
        value=None if item.status == "failed" else item.reward,
        parts=parts,
        weights=weights,
        status=item.status,
        is_final=item.status == "failed" and item.is_final,
        detail=detail or ("the service gave no reason" if item.status == "failed" else None),
    )


def _shown(body: bytes, told: Callable[[str], str]) -> str:
    return repr(told(body[:LOOKED_AT].decode(errors="replace"))) if body else "nothing"
