"""Requests that come one by one are asked together: whatever waits while workers are busy goes to them at once.

request ──► queue ──► all that waits, up to a bound ──► answers in a thread ──► each to whoever asked
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.judging.chat import Reply

_AT_ONCE = 128
_MOST_WAITING = 1024


class DeskError(Exception):
    """Why nobody answers: the words are for whoever asked."""


class Desk:
    """Between those who ask and workers that answer one batch at a time."""

    def __init__(self, answer: Callable[[Sequence[Any]], list[Reply]], *, on_fault: Callable[[], None]) -> None:
        """
        Args:
            answer: A reply to each of some requests, in the order given; called in a thread, never twice at a time.
            on_fault: Called when it raises: nothing is answered after that.
        """
        self._answer, self._on_fault = answer, on_fault
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Reply]]] = asyncio.Queue(_MOST_WAITING)
        self.fault: Exception | None = None
        """What the workers ended in."""

    async def ask(self, work: Any) -> Reply:
        """The reply to one request.

        Raises:
            DeskError: too many wait, or the workers are lost.
        """
        if self.fault is not None or self._waiting.full():
            raise DeskError("the workers are lost" if self.fault else f"{_MOST_WAITING} requests wait already")
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((work, reply))
        return await reply

    async def serve(self) -> None:
        """Answer for as long as nothing is lost."""
        while self.fault is None:
            batch = [await self._waiting.get()]
            while len(batch) < _AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Whoever has hung up is not answered.
            batch = [(work, reply) for work, reply in batch if not reply.done()]
            try:
                replies = await asyncio.to_thread(self._answer, [work for work, _ in batch]) if batch else []
            except Exception as fault:  # noqa: BLE001 - whatever it is, it is raised again by whoever started the server
                self._stop(fault, [reply for _, reply in batch])
                return
            for (_, waited), reply in zip(batch, replies, strict=True):
                if not waited.done():
                    waited.set_result(reply)

    def _stop(self, fault: Exception, asked: list["asyncio.Future[Reply]"]) -> None:
        self.fault = fault
        while not self._waiting.empty():
            asked.append(self._waiting.get_nowait()[1])
        for reply in asked:
            if not reply.done():
                reply.set_exception(DeskError("the workers are lost"))
        self._on_fault()
