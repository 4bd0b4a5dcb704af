"""Values by digest for as long as a step needs them, within a bound on their bytes."""

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
        value = self.find(digest)
        if value is None:
            value = make()
            self.keep(digest, value)
        return value

    def find(self, digest: str) -> V | None:
        """The value of ``digest``, if it is here."""
        self._touched.add(digest)
        if digest not in self._values:
            return None
        self._values.move_to_end(digest)
        return self._values[digest]

    def keep(self, digest: str, value: V) -> None:
        """Take a value that was not here."""
        self._values[digest] = value
        self.num_bytes += self._size_of(value)
        while self.num_bytes > self._max_bytes and len(self._values) > 1:
            self.num_bytes -= self._size_of(self._values.popitem(last=False)[1])

    def forget_untouched(self) -> None:
        """Drop what nobody has asked for since the last call, so that memory does not follow the number of images."""
        for digest in self._values.keys() - self._touched:
            self.num_bytes -= self._size_of(self._values.pop(digest))
        self._touched.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._touched.clear()
        self.forget_untouched()
