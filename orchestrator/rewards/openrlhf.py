"""A service that speaks OpenRLHF's JSON: three lists out, lists of numbers back, everything by position.

{"query": [prompt and completion], "prompts": [...], "labels": [...]}  →  {"rewards": [...], "extra_logs": {...}}
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.rewards.reward import Reward, RewardItem, failed_reward

ROUTE = "get_reward"
"""The last word of the address of such a service."""
_LARGEST_FLOAT32 = 3.4e38


def speaks_openrlhf(url: str) -> bool:
    """By its address, as OpenRLHF's own users write it: ``http://host:port/get_reward``."""
    return url.rstrip("/").endswith(f"/{ROUTE}")


def body_of(items: Sequence[RewardItem]) -> dict[str, list[str | None]]:
    """The request about these items."""
    return {
        "query": [item.prompt + item.response for item in items],
        "prompts": [item.prompt for item in items],
        "labels": [item.label for item in items],
    }


def read_openrlhf(body: bytes, ids: Sequence[str], *, told: Callable[[str], str]) -> dict[str, Reward]:
    """Rewards by id; an answer that does not fit the question gives nobody one."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return dict.fromkeys(ids, failed_reward(f"the service answered what is not JSON: {told(repr(body[:200]))}"))
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(rewards, list) or len(rewards) != len(ids):
        count = f"{len(rewards)} rewards" if isinstance(rewards, list) else "no list of rewards"
        return dict.fromkeys(ids, failed_reward(f"the service answered {count} for {len(ids)} items"))
    return {uid: _reward(value, told) for uid, value in zip(ids, rewards, strict=True)}


def _reward(value: Any, told: Callable[[str], str]) -> Reward:
    # A column, as a tensor of shape [n, 1] is written, is taken too.
    number = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= _LARGEST_FLOAT32:
        return Reward(value=float(number), status="scored")
    return failed_reward(f"the service's reward is {told(repr(value)[:200])}, expected a finite number")
