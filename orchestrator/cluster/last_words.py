"""Why a worker ended, in one sentence out of what Ray says about it. Pure.

The actor died because of an error raised in its creation task, ray::RolloutWorker.__init__() ...
  File "workers/rollout/vllm_rollout.py", line 48, in __init__
    ...
ValueError: Free memory on device cuda:0 (3.1/139.8 GiB) on startup is less than ...      ◄── this
"""

import re

_LONGEST = 400
"""Characters; a sentence that is longer is cut in its middle, as both its ends tell something."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'^\s+File ".*", line \d+')
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_NO_NEWS = ("For further information visit", "The actor never ran")
_OF_A_CHECK = re.compile(r" \[type=\w+, input_value=.*$")
_DETAIL = "Worker exit detail:"


def last_words(text: str) -> str:
    """What an error of Ray's says went wrong: the message its traceback ends in, and what caused that.

    Args:
        text: The whole error, as Ray tells it.
    """
    plain = _COLOUR.sub("", text).strip()
    if any(_FRAME.match(line) for line in plain.splitlines()):
        said = _messages(plain)
    else:
        said = plain.partition(_DETAIL)[2] or plain
        said = _joined([line for line in said.splitlines() if not line.startswith("\t")])
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} ... {said[-_LONGEST // 2 :]}"


def _messages(traceback: str) -> str:
    """The message of the last exception; in brackets that of the first of those that caused it."""
    # What was merely being handled when another went wrong is not its cause.
    causes = [_message(part) for part in traceback.rpartition(_CONTEXT)[2].split(_CAUSE)]
    last, first = causes[-1], causes[0]
    return last if first in last else f"{last} ({first})"


def _message(traceback: str) -> str:
    """All lines of what follows the innermost frame and its source."""
    lines = traceback.splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    after = lines[frames[-1] + 1 :] if frames else lines
    while after and after[0][:1].isspace():
        after.pop(0)
    return _joined(after)


def _joined(lines: list[str]) -> str:
    words = [_OF_A_CHECK.sub("", line.strip()) for line in lines]
    return " ".join(line for line in words if line and not line.startswith(_NO_NEWS))
