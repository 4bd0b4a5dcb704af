"""A short slice of ``benchmarks/service_faults.py``: under load and faults no reward is wrong, and none is lost."""

import pytest

from benchmarks.service_faults import run


@pytest.mark.parametrize("fault", ["disk full", "corrupt", "tampered", "SIGTERM"])
def test_no_reward_is_wrong_and_none_that_the_judge_gave_is_lost(fault: str) -> None:
    tally = run(fault, 1.5)
    assert (tally.wrong, tally.lost) == (0, 0)
    assert len(tally.rewards) > 8, "it was under load"
