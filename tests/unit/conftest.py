"""A process group of one rank, for tests of what policy ranks do."""

from collections.abc import Iterator

import pytest
import torch

_ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """One for all tests of this process: DeepSpeed keeps the first that it sees."""
    # Deferred: few tests need DeepSpeed.
    from workers.backends.deepspeed_engine import init_process_group

    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        init_process_group(0, 1, "127.0.0.1", 0)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def one_rank(process_group: None) -> Iterator[None]:
    """What a policy rank that is alone finds around it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        yield
