"""Requests that come one by one are asked together: whatever waits while workers are busy goes to them at once.

place ──► request ──► all that waits, up to a bound ──► answers in a thread ──► each to whoever asked
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from orchestrator.judging.chat import Reply

_AT_ONCE = 128
_MOST_WAITING = 1024
_LOOK_EVERY_S = 10.0


class DeskError(Exception):
    """Why nobody answers: the words are for whoever asked."""


class Desk:
    """Between those who ask and workers that answer one batch at a time."""

    def __init__(
        self,
        answer: Callable[[Sequence[Any]], list[Reply]],
        *,
        on_fault: Callable[[], None],
        look: Callable[[], None] = lambda: None,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        """
        Args:
            answer: A reply to each of some requests, in the order given; called in a thread, never twice at a time.
            on_fault: Called when it raises: nothing is answered after that.
            look: Raises where workers are lost; called like ``answer``, while nobody asks.
            look_every_s: Seconds between two looks.
        """
        self._answer, self._on_fault, self._look, self._look_every_s = answer, on_fault, look, look_every_s
        self._places = 0
        self._waiting: dict[asyncio.Future[Reply], Any] = {}
        """Requests in their order, each by what it waits for."""
        self._asked = asyncio.Event()
        self.fault: Exception | None = None
        """What the workers ended in."""

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places that there are for requests: whoever asks has it from before its body is read.

        Raises:
            DeskError: none is free, or the workers are lost.
        """
        if self.fault is not None or self._places >= _MOST_WAITING:
            raise DeskError("the workers are lost" if self.fault else f"{_MOST_WAITING} requests wait already")
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    async def ask(self, work: Any) -> Reply:
        """The reply to one request; where this is cancelled before workers have it, they never do.

        Raises:
            DeskError: the workers are lost.
        """
        if self.fault is not None:
            raise DeskError("the workers are lost")
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = work
        del work
        self._asked.set()
        try:
            return await reply
        finally:
            self._waiting.pop(reply, None)

    async def serve(self) -> None:
        """Answer for as long as nothing is lost."""
        while self.fault is None:
            batch = {reply: self._waiting.pop(reply) for reply in list(islice(self._waiting, _AT_ONCE))}
            try:
                if not batch:
                    await self._idle()
                    continue
                replies = await asyncio.to_thread(self._answer, list(batch.values()))
            except Exception as fault:  # noqa: BLE001 - whatever it is, it is raised again by whoever started the server
                self._stop(fault, [*batch, *self._waiting])
                return
            for waited, reply in zip(batch, replies, strict=True):
                if not waited.done():
                    waited.set_result(reply)

    async def _idle(self) -> None:
        """Until somebody asks, or it is time to look at the workers, which is done then."""
        self._asked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_every_s):
                await self._asked.wait()
                return
        await asyncio.to_thread(self._look)

    def _stop(self, fault: Exception, asked: list["asyncio.Future[Reply]"]) -> None:
        self.fault = fault
        for reply in asked:
            if not reply.done():
                reply.set_exception(DeskError("the workers are lost"))
        self._on_fault()
