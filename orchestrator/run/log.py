"""The log of a run in its folder, a JSON object a line, and what libraries say on the console without being asked."""

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


_QUIET = ("ray._private.authentication.authentication_token_setup",)


def quiet_libraries() -> None:
    """Turn off progress bars of small local files and notices about settings the driver makes itself."""
    # Deferred: refusals of a configuration must not wait for it.
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # A filter, because importing the library sets the level; imported in the driver only by transformers.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
