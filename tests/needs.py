"""What a registered algorithm needs with its own settings."""

from algorithms.algorithm import Needs
from algorithms.registry import algorithm_class


def needs_of(algo: str) -> Needs:
    """Of its name."""
    kind = algorithm_class(algo)
    return kind(algo, {name: section() for name, section in kind.sections.items()}).needs
