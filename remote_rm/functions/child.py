"""The process that runs reward functions: one line of JSON in, one line out, until its parent closes the pipe.

What a function prints goes to the service's log. Whatever it raises, ``SystemExit`` too, is an answer; what it cannot
answer any more, because it hangs or has ended the process, its parent notices.
"""

import base64
import ctypes
import inspect
import io
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, get_args, get_type_hints

from remote_rm.given import PICTURE, read_bytes

_PR_SET_PDEATHSIG = 1
_LARGEST_FLOAT32 = 3.4e38
_ONE = ("prompt", "completion", "label", "images", "row", "length", "finish_reason")
_GROUP = ("prompt", "completions", "label", "images", "row", "lengths", "finish_reasons")
_TOLD = {
    "length": "how many tokens the completion has",
    "lengths": "how many tokens the completion has",
    "finish_reason": "why the completion ended",
    "finish_reasons": "why the completion ended",
}
"""What only whoever sampled can say."""
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class _Loaded:
    call: Callable[..., Any]
    takes: tuple[str, ...]
    options: Mapping[str, Any]
    needs: tuple[str, ...]
    """Of what only whoever sampled can say, what it cannot do without."""

    @property
    def is_of_group(self) -> bool:
        return "completions" in self.takes


def main() -> None:
    """Load what the first line names, say what each takes, then answer."""
    own, (requests, answers) = os.getpid(), _pipes()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    start = json.loads(requests.readline())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (start["memory_bytes"], start["memory_bytes"]))

    def say(told: Mapping[str, Any]) -> None:
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()

    try:
        loaded = [_load(one["target"], one["options"]) for one in start["functions"]]
    except BaseException as error:  # noqa: BLE001 - a user's file may raise anything, SystemExit too
        say({"refused": _told(error)})
        return
    say({"loaded": [{"is_of_group": one.is_of_group, "images": "images" in one.takes} for one in loaded]})
    for line in requests:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"values": _values(loaded[request["function"]], request)}
        except BaseException as error:  # noqa: BLE001 - likewise
            answer = {"error": _told(error)}
        if os.getpid() != own:
            os._exit(0)  # a copy that a function has made of this process answers for nobody
        say({"id": request["id"], **answer})


def _pipes() -> tuple[io.BufferedReader, io.BufferedWriter]:
    """The way to the parent, out of reach of what a function prints or reads."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _load(target: str, options: Mapping[str, str]) -> _Loaded:
    file, _, name = target.rpartition(":")
    found = getattr(_module(Path(file)) if file.endswith(".py") else import_module(file), name, None)
    if not callable(found):
        raise TypeError(f"{target} is no function")
    if inspect.iscoroutinefunction(found):
        raise TypeError(f"{target} is asynchronous; a process calls it for one sample at a time, so it need not be")
    parameters = inspect.signature(found).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        # It takes whatever there is; pictures are opened for those that name them alone.
        whatever = _GROUP if "completions" in parameters else _ONE
        takes = tuple(name for name in whatever if name in parameters or name != "images")
        return _Loaded(found, takes, _read(target, options, found), _needs(parameters))
    takes = tuple(parameter for parameter in parameters if parameter in (*_ONE, *_GROUP) and parameter not in options)
    of_sample = {"completion", "completions", *_TOLD} & set(takes)
    if not of_sample or {"completion", "completions"} <= of_sample:
        raise TypeError(f"{target} should take completion, or completions for all samples of a prompt")
    unfilled = [
        one.name
        for one in parameters.values()
        if one.default is inspect.Parameter.empty and one.name not in (*takes, *options)
    ]
    if unfilled:
        raise TypeError(
            f"{target} takes {unfilled[0]}, which nobody gives it; there are {', '.join(_ONE)}, or "
            f"{', '.join(_GROUP)}, and what stands behind the ? in its name"
        )
    return _Loaded(found, takes, _read(target, options, found), _needs(takes))


def _needs(takes: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in takes if name in _TOLD)


@cache
def _module(path: Path) -> Any:
    """A file is run once, however many of its functions are asked for."""
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file")
    sys.path.insert(0, str(path.resolve().parent))  # what lies beside it can be imported
    spec = spec_from_file_location(f"reward_functions_{path.stem}_{len(sys.path)}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(target: str, options: Mapping[str, str], function: Callable[..., Any]) -> dict[str, Any]:
    """Options as what their annotation says, or else their default."""
    made: dict[str, Any] = {}
    parameters, hints = inspect.signature(function).parameters, get_type_hints(function)
    for name, written in options.items():
        if name not in parameters:
            raise TypeError(f"{target} takes no option {name!r}")
        hint = hints.get(name, type(parameters[name].default))
        kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
        kind = kinds[0] if len(kinds) == 1 and kinds[0] in (bool, int, float) else str
        try:
            made[name] = _converted(written, kind)
        except ValueError as error:
            raise TypeError(f"{target}: {name} = {written!r} is not of the kind {kind.__name__}") from error
    return made


def _converted(written: str, kind: type) -> Any:
    if kind is bool:
        if written not in ("true", "false"):
            raise ValueError(written)
        return written == "true"
    return kind(written)


def _values(function: _Loaded, request: Mapping[str, Any]) -> list[float | None]:
    given = {name: request[name] for name in function.takes if name != "images"}
    if "images" in function.takes:
        given["images"] = [_image(one) for one in request["images"]]
    for name in function.needs:
        if None in (given[name] if function.is_of_group else [given[name]]):
            raise ValueError(f"nobody has said {_TOLD[name]}")
    found = function.call(**given, **function.options)
    if not function.is_of_group:
        return [_number(found)]
    if isinstance(found, str | bytes | Mapping) or not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise TypeError(f"it returned {_shown(found)}, expected a number for each completion")
    values, wanted = list(found), len(request["completions"])
    if len(values) != wanted:
        raise ValueError(f"it returned {len(values)} values for {wanted} completions")
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """A number as a number, None as nothing to say."""
    if value is None:
        return None
    if isinstance(value, str | bytes | Sequence) or not hasattr(value, "__float__"):
        raise TypeError(f"it returned {_shown(value)}, expected a number")
    number = float(value)
    if not math.isfinite(number) or abs(number) > _LARGEST_FLOAT32:
        raise ValueError(f"it returned {number}, expected a finite number")
    return number


def _image(source: Mapping[str, str]) -> Any:
    from remote_rm.pictures import open_picture  # deferred: only functions that look need Pillow

    data = base64.b64decode(source["base64"]) if "base64" in source else read_bytes(Path(source["path"]), most=PICTURE)
    return open_picture(data)


def _told(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:_SHOWN] if words else type(error).__name__


def _shown(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, str) else f"the text {value[:80]!r}"


if __name__ == "__main__":
    main()
