"""Each line of log.jsonl is one object that names its run and step."""

import json
import logging
from pathlib import Path

import pytest

from orchestrator.run.log import run_log


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_carry_run_and_step_and_stay_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with run_log(path, run="digits") as log:
        logging.getLogger("orchestrator.cluster.sync").info("engine %d re-synced\nagain", 1)
        log.step = 7
        logging.getLogger("workers.rollout").warning("slow")
        logging.getLogger("orchestrator").debug("not kept")
        logging.getLogger("elsewhere").warning("not ours")
    first, second = _lines(path)
    assert (first["run"], first["step"], first["level"], first["message"]) == (
        "digits",
        None,
        "info",
        "engine 1 re-synced\nagain",
    )
    assert (second["step"], second["logger"]) == (7, "workers.rollout")


def test_an_exception_is_kept_with_its_traceback(tmp_path: Path) -> None:
    with run_log(tmp_path / "log.jsonl", run="r"):
        try:
            raise ValueError("bad row")
        except ValueError:
            logging.getLogger("orchestrator").exception("refused")
    (line,) = _lines(tmp_path / "log.jsonl")
    assert "ValueError: bad row" in str(line["error"])


def test_after_the_block_nothing_more_is_written_and_a_resume_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, logger = tmp_path / "log.jsonl", logging.getLogger("orchestrator")
    monkeypatch.setattr(logger, "level", logging.ERROR)
    for message in ("first", "second"):
        with run_log(path, run="r"):
            logger.info(message)
        logger.info("outside")
    assert [line["message"] for line in _lines(path)] == ["first", "second"]
    assert logger.level == logging.ERROR and not any(isinstance(h, logging.FileHandler) for h in logger.handlers)
