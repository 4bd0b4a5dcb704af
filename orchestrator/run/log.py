"""``log.jsonl``: what happened in a run, one JSON object a line, each with the run and the step it belongs to."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

_LOGGERS = ("orchestrator", "workers")


class RunLogFormatter(logging.Formatter):
    """Formats a record as one line of JSON; ``step`` is set by whoever drives the run."""

    def __init__(self, *, run: str) -> None:
        super().__init__()
        self._run = run
        self.step: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end; an exception's traceback stands under ``error``."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": self._run,
            "step": self.step,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def run_log(path: Path, *, run: str) -> Iterator[RunLogFormatter]:
    """Append what this process logs under the project's loggers, from INFO up, to ``path`` during the block.

    Args:
        run: Name of the run, put on every line.
    Yields:
        The formatter; set its ``step`` as the run goes on.
    """
    formatter = RunLogFormatter(run=run)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(formatter)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield formatter
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        handler.close()
