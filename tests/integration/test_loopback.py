"""What a run starts on one machine is not to be reached from another: whoever reaches a port of Ray can run code."""

import json
import os
import subprocess
import sys
from ipaddress import ip_address

import pytest

pytestmark = pytest.mark.integration


def _is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_a_run_of_one_machine_listens_on_the_loopback_interface_alone() -> None:
    # A process of its own, where nothing has imported Ray yet.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    answer = subprocess.run(
        [sys.executable, "-m", "tests.integration.listeners"],
        env=environment, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    addresses = json.loads(answer.stdout.splitlines()[-1])
    assert addresses and all(map(_is_loopback, addresses)), addresses
