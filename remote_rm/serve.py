"""Start the service: ``python -m remote_rm.serve [--host H] [--port P] [--judge rules|openai] ...``.

Prints one line, ``listening on http://HOST:PORT``, once the socket is bound and the app has started; nothing else
ever goes to stdout, because the parent that waits for this line may never read another.
"""

import asyncio
import ctypes
import io
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from remote_rm import own_files
from remote_rm.addresses import is_loopback
from remote_rm.app import Limits, create_app
from remote_rm.connections import Server
from remote_rm.functions import pool
from remote_rm.functions.pool import Bounds, FunctionPool
from remote_rm.functions.spec import function_specs
from remote_rm.given import check_host, told
from remote_rm.judges.protocol import Judge, JudgeError, JudgeUnavailable
from remote_rm.judges.rules import RulesJudge
from remote_rm.metrics import Metrics
from remote_rm.rulebooks import COMPAT, STRICT
from remote_rm.secret_words import Secrets
from remote_rm.verdict_cache import VerdictCache

_PR_SET_CHILD_SUBREAPER = 36
_MOST_SAID = 20_000
_REFUSED, _INTERRUPTED = 2, 130
_MOST = {
    "function_workers": 10_000,
    "function_timeout_s": 1e8,
    "function_memory_gib": 1e6,
    "judge_concurrency": 10_000,
    "judge_timeout_s": 1e8,
}
_BEHIND = ("Got errors:", "Argument helptext:", "For full helptext", "Perhaps you meant")
_BACKLOG = 512
_PROBES = 3
_BETWEEN_PROBES_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """HTTP service that rewards and judges completions."""

    host: str = "127.0.0.1"
    """Address to listen on; any other than loopback needs --token-file."""
    port: int = 8400
    """Port to listen on; 0 takes a free one."""
    judge: Literal["rules", "openai"] = "rules"
    """Judge of consistency: fixed rules, or a model behind an OpenAI-compatible endpoint."""
    judge_url: str | None = None
    """Base address of that endpoint, e.g. http://127.0.0.1:8000/v1."""
    judge_model: str | None = None
    """Name of the model there."""
    judge_key_file: Path | None = None
    """File holding the endpoint's API key."""
    judge_timeout_s: float = 15.0
    """Longest wait for one call of the judge, seconds."""
    judge_concurrency: int = 32
    """Calls of the judge under way at once."""
    cache: Path | None = None
    """SQLite file that keeps verdicts; none = they are forgotten."""
    scoring: Literal["strict", "compat"] = "strict"
    """Rules of format, accuracy and reading the judge: ours, or the lenient ones of the R1-Reward release."""
    functions: tuple[str, ...] = ()
    """Functions that are the reward in place of --scoring: FILE.py:NAME or one that is built in, each with what it
    counts and its options: number?weight=0.5&tolerance=0.01."""
    function_workers: int = 4
    """Processes that run them."""
    function_timeout_s: float = 10.0
    """Longest time of one call, seconds."""
    function_memory_gib: float = 4.0
    """Memory that one process may take, GiB."""
    media_root: tuple[Path, ...] = ()
    """Folders that requests may name files of images in."""
    token_file: Path | None = None
    """File holding the bearer token that every request must carry."""
    probe: bool = False
    """Open the cache, ask the judge one easy question, and end: with exit code 2 and its words if it does not serve."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stopped; exit code 2 with one line when the options cannot work."""
    options = _parsed(arguments)
    # What a reward function leaves running becomes a child of this process, which ends it.
    pool.ADOPTS_ORPHANS = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    secrets, metrics = Secrets(), Metrics()
    try:
        _check_bounds(options)
        token, key = _token(options), _key(options)
        secrets = Secrets([token, key])
        functions = _functions(options)
        if functions is not None:
            asyncio.run(_try(functions))
        judge = build_judge(options, key, secrets)
        cache = VerdictCache(options.cache) if options.cache is not None else None
        if options.probe:
            asyncio.run(_probe(judge))
            return
        app = create_app(
            judge,
            cache,
            limits=Limits(judge_concurrency=options.judge_concurrency),
            rulebook=STRICT if options.scoring == "strict" else COMPAT,
            functions=_functions(options),
            media_roots=tuple(root.resolve() for root in options.media_root),
            token=token,
            secrets=secrets,
            metrics=metrics,
        )
        listener = _bind(options.host, options.port)
    except (ValueError, OSError, JudgeError) as error:
        sys.stderr.write(f"remote_rm.serve: {told(secrets.scrub(str(error)))}\n")
        raise SystemExit(_REFUSED) from error
    except KeyboardInterrupt as error:
        raise SystemExit(_INTERRUPTED) from error
    secrets.take_log()
    with suppress(KeyboardInterrupt):  # which uvicorn raises once more, after it has ended
        Server(app, metrics).run([listener])


def _parsed(arguments: Sequence[str] | None) -> ServeOptions:
    """The flags, or exit code 2 with one line of the parser's reason, without its frame and its advice."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(ServeOptions, args=arguments, description=ServeOptions.__doc__)
    except SystemExit as ending:
        if ending.code:
            words = re.sub(r"[\u2500-\u257f]+", " ", said.getvalue()[:_MOST_SAID])
            for mark in _BEHIND:
                words = words.partition(mark)[0]
            sys.stderr.write(f"remote_rm.serve: {told(words)}\n")
        raise


def build_judge(options: ServeOptions, key: str | None, secrets: Secrets) -> Judge:
    """The judge the options name.

    Raises:
        ValueError: an option the judge needs is not set.
    """
    if options.judge == "rules":
        return RulesJudge()
    for name, value in (("--judge-url", options.judge_url), ("--judge-model", options.judge_model)):
        if not value:
            raise ValueError(f"{name} is not set, but --judge openai needs it")
    # Imported here: the client takes a second to load, which the embedded default need not wait for.
    from remote_rm.judges import words
    from remote_rm.judges.openai_judge import OpenAiJudge

    assert options.judge_url is not None and options.judge_model is not None
    return OpenAiJudge(
        options.judge_url,
        options.judge_model,
        api_key=key or "EMPTY",
        timeout_s=options.judge_timeout_s,
        manner=words.STRICT if options.scoring == "strict" else words.COMPAT,
        secrets=secrets,
    )


def _functions(options: ServeOptions) -> FunctionPool | None:
    if not options.functions:
        return None
    bounds = Bounds(
        workers=options.function_workers,
        deadline_s=options.function_timeout_s,
        memory_gib=options.function_memory_gib,
    )
    return FunctionPool(function_specs(options.functions), bounds)


async def _try(functions: FunctionPool) -> None:
    """Load them once, to refuse those that cannot be."""
    try:
        await functions.start()
    finally:
        await functions.close()


async def _probe(judge: Judge) -> None:
    """Return when the judge answers; trouble that may pass is given a moment to."""
    for again in reversed(range(_PROBES)):
        try:
            await judge.probe()
            break
        except JudgeUnavailable:
            if not again:
                raise
            await asyncio.sleep(_BETWEEN_PROBES_S)
    await judge.close()


def _check_bounds(options: ServeOptions) -> None:
    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port {options.port} should be from 0 to 65535")
    for name, most in _MOST.items():
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if name == "judge_concurrency" and value < 1:
            raise ValueError(f"{flag} {value} should be at least 1")
        if not value > 0:
            raise ValueError(f"{flag} {value:g} should be above 0")
        if value > most:
            raise ValueError(f"{flag} should be at most {most:g}")
    for name in ("host", "judge_url", "judge_model", "judge_key_file", "cache", "token_file"):
        if "\0" in str(getattr(options, name)):
            raise ValueError(f"--{name.replace('_', '-')} holds a NUL character")
    if any("\0" in str(one) for one in (*options.functions, *options.media_root)):
        raise ValueError("--functions or --media-root holds a NUL character")
    if options.judge_url is not None:
        check_host(options.judge_url, name="--judge-url")


def _token(options: ServeOptions) -> str | None:
    if options.token_file is not None:
        return _secret(options.token_file)
    if not is_loopback(options.host):
        raise ValueError(f"--host {options.host} is not loopback, so --token-file is needed")
    return None


def _key(options: ServeOptions) -> str | None:
    return _secret(options.judge_key_file) if options.judge_key_file is not None else None


def _secret(path: Path) -> str:
    secret = own_files.read_text(path).strip()
    if not secret:
        raise ValueError(f"{path} is empty; it should hold a secret")
    # It travels in a header, and an error about that would show it.
    if not (secret.isascii() and secret.isprintable()):
        raise ValueError(f"{path} should hold one line of ASCII characters, its secret")
    return secret


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ValueError(f"cannot listen on {host} port {port}: {error}") from error


if __name__ == "__main__":
    main()
