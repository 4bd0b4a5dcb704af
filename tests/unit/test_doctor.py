"""What the doctor concludes from what it sees."""

from pathlib import Path

from orchestrator.doctor import check_versions, judge_space, judge_torchvision


def test_torch_and_torchvision_of_different_builds_are_named_in_one_sentence() -> None:
    stderr = "Traceback ...\nRuntimeError: operator torchvision::nms does not exist\n"
    finding = judge_torchvision(1, stderr, "2.13.0+cpu", "0.28.0")
    assert finding.verdict == "fix"
    assert "torch 2.13.0+cpu and torchvision 0.28.0 are builds of different kinds" in finding.detail


def test_any_other_failure_shows_its_last_line() -> None:
    finding = judge_torchvision(1, "Traceback ...\nImportError: libfoo.so\n", "2.13.0", "0.28.0")
    assert (finding.verdict, finding.detail) == ("fix", "ImportError: libfoo.so")


def test_a_matching_torchvision_is_fine() -> None:
    assert judge_torchvision(0, "", "2.13.0", "0.28.0").verdict == "ok"


def test_installed_packages_are_listed_with_their_version() -> None:
    findings = {finding.subject: finding for finding in check_versions()}
    assert findings["torch"].verdict == "ok" and findings["torch"].detail[0].isdigit()


def test_space_is_judged_against_what_a_run_needs(tmp_path: Path) -> None:
    assert judge_space("disk", str(tmp_path), minimum_gib=0.0, shortage="fix").verdict == "ok"
    assert judge_space("disk", str(tmp_path), minimum_gib=1e9, shortage="fix").verdict == "fix"
    assert judge_space("disk", str(tmp_path / "absent"), minimum_gib=0.0, shortage="note").verdict == "note"
