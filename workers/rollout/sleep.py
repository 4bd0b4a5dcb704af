"""The states of an engine that shares its GPU: what it holds while the policy trains, and in which order it comes back.

    awake ── sleep ──► asleep ── wake_weights ──► loading ── wake_cache ──► awake

Weights come back before the cache, so that new ones arrive while the GPU still has room for the transfer.
"""

from typing import Literal

State = Literal["awake", "asleep", "loading"]


class SleepCycle:
    """Refuses every step out of order: an engine that samples without its weights does not notice by itself."""

    def __init__(self, state: State) -> None:
        self.state: State = state

    def sleep(self) -> bool:
        """Everything leaves the GPU. Returns False where it has left already."""
        if self.state == "asleep":
            return False
        self.require("awake", "sleep")
        self.state = "asleep"
        return True

    def wake_weights(self) -> bool:
        """Room for the weights. Returns False where there is: awake, or after a transfer that failed."""
        if self.state != "asleep":
            return False
        self.state = "loading"
        return True

    def wake_cache(self) -> bool:
        """Room for the cache; the engine may sample. Returns False for an engine that is awake and has it."""
        if self.state == "awake":
            return False
        self.require("loading", "wake its cache")
        self.state = "awake"
        return True

    def require(self, state: State, action: str) -> None:
        """
        Raises:
            RuntimeError: the engine is in another state.
        """
        if self.state != state:
            raise RuntimeError(f"an engine that is {self.state} cannot {action}; it must be {state}")
