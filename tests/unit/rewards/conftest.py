"""A model whose words the digits' critiques are, and a cache that is empty."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.rewards.critique_judge import CritiqueCache
from orchestrator.tasks.digits_critiques import VOCABULARY
from orchestrator.tasks.digits_model import build_digits_model


@pytest.fixture(scope="session")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for its tokenizer and template alone."""
    return build_digits_model(tmp_path_factory.mktemp("speller") / "model", seed=0, words=VOCABULARY)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CritiqueCache]:
    with CritiqueCache(tmp_path / "critiques.sqlite") as opened:
        yield opened
