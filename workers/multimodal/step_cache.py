"""What is worth keeping while one step lasts: by content, bounded in bytes, forgotten when a step has not used it."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class StepCache(Generic[V]):
    """Values by digest; the least recently used leave first where bytes run out."""

    def __init__(self, max_bytes: int, *, num_bytes: Callable[[V], int]) -> None:
        """
        Args:
            max_bytes: Bound on the sum of ``num_bytes``; a single value above it is kept until the next.
            num_bytes: Size of one value.
        """
        self._max_bytes, self._size_of = max_bytes, num_bytes
        self._values: OrderedDict[str, V] = OrderedDict()
        self._touched: set[str] = set()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, digest: str, make: Callable[[], V]) -> V:
        """The value of ``digest``, made if it is not here."""
        self._touched.add(digest)
        if digest not in self._values:
            self._values[digest] = make()
            self.num_bytes += self._size_of(self._values[digest])
            while self.num_bytes > self._max_bytes and len(self._values) > 1:
                self.num_bytes -= self._size_of(self._values.popitem(last=False)[1])
        self._values.move_to_end(digest)
        return self._values[digest]

    def forget_untouched(self) -> None:
        """Drop what nobody has asked for since the last call, so that memory does not follow the number of images."""
        for digest in self._values.keys() - self._touched:
            self.num_bytes -= self._size_of(self._values.pop(digest))
        self._touched.clear()
