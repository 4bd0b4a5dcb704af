"""``python -m orchestrator.judge --model DIR --image FILE --question TEXT --response TEXT --response TEXT``.

The model is one that writes verdicts, a critique or a scalar reward model. Any option of ``orchestrator.train`` may
follow, e.g. ``--data.media_root``, ``--rollout.max_new_tokens``, ``--run.seed``.
"""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from algorithms.settings import MOST
from orchestrator import command_line
from orchestrator.command_line import ended, refuse_paths
from orchestrator.config.benchmarks import VerdictForm
from orchestrator.config.flags import parted
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.shards import beside
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.files import ItemFile
from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.evaluation.benchmarks.prompts import request_of
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.results import answered
from orchestrator.evaluation.scorers.choice import asks_of, kind_of, scorer_of
from orchestrator.judging.questions import QUESTIONS, item_of, items_in, under
from orchestrator.judging.showing import lines_of
from orchestrator.judging.verdicts import compared, ranked, record
from orchestrator.run.folder import RunFolder, write_atomic

_OF_ONE = ("question", "image", "frames", "response")
_OF_VERDICTS = ("votes", "form", "template")
_MOST_PORT, _MOST_IMAGES = 65_535, 10_000
_OF_SERVER = ("host", "port", "token_file", "max_images")


@dataclass(frozen=True)
class Judge:
    """Ask a reward model or a judge which of some responses to a question about images is best, and how sure it is."""

    model: str
    """Folder of the model."""
    question: str | None = None
    """What the responses answer."""
    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Image that the question is about; as often as there are some."""
    frames: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Folder of frames, or a video file; as often as there are some."""
    response: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A response; twice or more often."""
    rows: str | None = None
    """File of questions in place of one, a line each: question, images or videos, responses, perhaps an id."""
    out: str | None = None
    """File for what was said, a JSON line a question; the answers are kept beside it, and not asked for again."""
    votes: int | None = None
    """Samples that vote in each order of two responses; none = the greedy verdicts."""
    form: VerdictForm = "tagged"
    """How a judge writes its verdict, and the template that asks for it."""
    template: str | None = None
    """File with a template of one's own, with {question}, {first} and {second}; its verdict is of the same form."""
    serve: bool = False
    """Answer OpenAI's clients in place of one question, until told to end."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than loopback needs --token_file."""
    port: int = 8500
    """Port to listen on; 0 takes a free one."""
    token_file: str | None = None
    """File holding the bearer token that every request must carry."""
    max_images: int = 8
    """Images that a request may hold."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    command, rest = parsed(argv)
    if command.serve:
        serve(command, rest)
        return 0
    for line in run(command, rest):
        sys.stdout.write(f"{line}\n")
    return 0


def parsed(argv: Sequence[str]) -> tuple[Judge, list[str]]:
    """The command's own flags, checked, and those of ``orchestrator.train``.

    Raises:
        RefusedInput: a value before all flags, or flags that do not go together.
    """
    own, rest = parted(
        argv,
        [field.name for field in dataclasses.fields(Judge)],
        unasked=("algo", "model.path", "data.path", "run.dir", "dry_run"),
        why="a model is asked by --model, --question or --rows, and --out",
    )
    command = command_line.parsed(Judge, own, prog="python -m orchestrator.judge")
    refuse_paths(command, "model", "image", "frames", "rows", "out", "template", "token_file")
    if not 0 <= command.port <= _MOST_PORT:
        raise RefusedInput(f"port = {command.port}: expected from 0 to {_MOST_PORT}")
    if (command.question is not None) + (command.rows is not None) + command.serve != 1:
        raise RefusedInput("give --question with --response, or --rows, or --serve")
    if command.serve:
        _refuse_set(command, (*_OF_ONE, *_OF_VERDICTS, "out"), "those who ask --serve say what they ask")
    else:
        _refuse_set(command, _OF_SERVER, "it is of --serve")
    if command.out is not None and Path(command.out).is_dir():
        raise RefusedInput(f"out = {command.out!r} is a folder, expected a file")
    if command.rows is not None:
        _refuse_set(command, _OF_ONE, "each row of --rows has its own")
    for name, most in (("votes", MOST), ("max_images", _MOST_IMAGES)):
        if (value := getattr(command, name)) is not None and not 1 <= value <= most:
            raise RefusedInput(f"{name} = {value}: expected from 1 to {most}")
    return command, rest


def run(command: Judge, rest: Sequence[str] = ()) -> list[str]:
    """Ask, write ``--out``, and return the lines that people are told.

    Args:
        rest: Options of ``orchestrator.train``.
    Raises:
        RefusedInput: model, question, rows or options that cannot be used.
        GuardStop: an engine cannot go on.
    """
    kind = kind_of(command.model)
    asks = asks_of("verdict", kind, benchmark="a judgement")
    if asks != "verdict":
        _refuse_set(command, _OF_VERDICTS, f"a {kind} reward model writes no verdict")
    request = request_of(command.form, command.template)
    with _answers_folder(command.out) as folder:
        config, _ = load_config([*_flags(command, folder.root), *rest])
        file, items = _asked(command, config, folder.root)
        # Deferred: the refusals above need neither torch nor Ray.
        from orchestrator.evaluation.benchmark_run import kept_answers
        from orchestrator.run.log import quiet_libraries

        quiet_libraries()
        options = _options(command, config, request)
        scorer = scorer_of(kind, config, options, asks=asks, folder=folder)
        asked = {"request": hashlib.sha256(request.encode()).hexdigest(), "video_frames": file.video_frames}
        asked = scorer.made_from() | asked
        kept = kept_answers(items, QUESTIONS, options, scorer, folder, asked=asked, of=file).current()
        return _told(command, items, kept)


def serve(command: Judge, rest: Sequence[str] = ()) -> None:
    """Answer OpenAI's clients until told to end.

    Args:
        rest: Options of ``orchestrator.train``.
    Raises:
        RefusedInput: model, address or options that cannot be used.
        GuardStop: workers cannot go on.
    """
    kind = kind_of(command.model)
    with _answers_folder(None) as folder:
        config, _ = load_config([*_flags(command, folder.root), *rest])
        # Deferred: the refusals above need neither torch nor Ray.
        from orchestrator.cluster.resources import available_cluster
        from orchestrator.judging.app import Bounds
        from orchestrator.judging.served import served_of
        from orchestrator.judging.serving import listener_at, refuse_several_machines, serve_at
        from orchestrator.rewards.check import secret_in
        from orchestrator.run.log import quiet_libraries

        quiet_libraries()
        token = secret_in(command.token_file, option="token_file", what="token")
        options, asks = _options(command, config, ""), asks_of("verdict", kind, benchmark="a judgement")
        scorer = scorer_of(kind, config, options, asks=asks, folder=folder)
        if scorer.plan is not None:
            refuse_several_machines(available_cluster())
        served = served_of(kind, scorer, command.model, max_images=command.max_images)
        with listener_at(command.host, command.port, has_token=token is not None) as listener:
            bounds = Bounds(max_images=command.max_images, max_pixels=config.data.refused_above)
            serve_at(served, listener, folder, model=command.model, bounds=bounds, token=token)


def _flags(command: Judge, root: Path) -> list[str]:
    flags = ["--algo", "sft", "--model.path", command.model, "--data.path", command.rows or "-"]
    return [*flags, "--run.dir", str(root)]


def _told(command: Judge, items: Sequence[Item], kept: Sequence[Prediction]) -> list[str]:
    found = []
    for one in answered(items, kept)[0]:
        rewards = any(said.rewards for said in one.predictions)
        found.append(ranked(one) if rewards else compared(one, form=command.form, votes=command.votes))
    if command.out is not None:
        records = [json.dumps(record(i, told), ensure_ascii=False) for i, told in zip(items, found, strict=True)]
        write_atomic(Path(command.out), "".join(f"{line}\n" for line in records))
    texts = command.rows is None
    return [line for i, told in zip(items, found, strict=True) for line in lines_of(i, told, with_texts=texts)]


def _asked(command: Judge, config: TrainConfig, root: Path) -> tuple[ItemFile, tuple[Item, ...]]:
    given = config.data.media_root
    rows = Path(command.rows) if command.rows is not None else None
    media_root, _ = under(given, ())
    file = ItemFile(
        path=rows or Path("the command line"),
        media_root=beside(rows) if rows is not None and given is None else media_root,
        pictures=root / "pictures",
        max_pixels=config.data.refused_above,
        video_frames=config.data.video_frames,
    )
    if rows is not None:
        return file, items_in(file)
    images, frames = under(given, command.image)[1], under(given, command.frames)[1]
    assert command.question is not None, "seen by parsed"
    return file, (item_of(file, question=command.question, images=images, videos=frames, responses=command.response),)


def _options(command: Judge, config: TrainConfig, request: str) -> AskOptions:
    return AskOptions(
        request=request,
        samples=command.votes or 0,
        temperature=config.rollout.temperature,
        seed=config.run.seed,
        max_new_tokens=config.rollout.max_new_tokens,
    )


@contextmanager
def _answers_folder(out: str | None) -> Iterator[RunFolder]:
    """Where answers are kept, locked: beside ``--out``, or for as long as the command runs.

    A refusal leaves nothing new; but what another command is using, or has made, stays.
    """
    with ExitStack() as stack:
        if out is None:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="raylign-judge-")))
        else:
            root = Path(f"{out}.answers")
        is_new = not root.exists()
        folder = RunFolder(root)
        folder.create()
        stack.callback(folder.release)
        try:
            yield folder
        except RefusedInput:
            if is_new:
                shutil.rmtree(root, ignore_errors=True)
            raise


def _refuse_set(command: Judge, names: Sequence[str], why: str) -> None:
    for name in names:
        if (value := getattr(command, name)) != getattr(Judge, name):
            raise RefusedInput(f"{name} = {value!r}: {why}")


if __name__ == "__main__":
    sys.exit(main())
