"""Every setting of every command line, each with all that ``adversarial`` has: what is run for it, and what it says.

A run that is fine but for one value is dry: it is read, checked and planned as a run would be, and nothing is started.

    python -m tests.fuzz.command_lines [PART/PARTS] [NAME ...]     the whole of it, or a part, with the faults found
"""

import dataclasses
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from algorithms.settings import Section
from orchestrator import evaluate, export, judge, report, train
from orchestrator.config.benchmarks import EvalBenchmark, Measure
from orchestrator.config.data_section import DataSource
from orchestrator.config.options import config_type
from orchestrator.data import __main__ as data
from orchestrator.evaluation.kits.run import KitCommand
from remote_rm import serve
from tests.contract.bad_inputs import valid_case
from tests.fuzz.adversarial import Value, place_of, values
from tests.fuzz.observed import Ending, observed

_FILE = "setting.toml"
_VALUES_A_KEY = 50
_SHARE_IN_FILES = 0.4


@dataclass(frozen=True, slots=True)
class Case:
    """A command line with one odd value."""

    name: str
    main: Callable[[Sequence[str]], int | None]
    argv: tuple[str, ...]
    toml: str | None = None
    """Content of the file ``setting.toml`` in the working folder, which ``argv`` names."""

    def run(self) -> Ending:
        """Run it in the working folder."""
        if self.toml is not None:
            Path(_FILE).write_bytes(self.toml.encode("utf-8", "surrogatepass"))
        return observed(self.main, self.argv)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a sweep stands on."""

    places: dict[str, str]
    base: dict[str, str]
    """Flags of a run that is fine."""
    bare: str
    """Folder of a model without weights, at which everything ends that would start workers."""


def ground_in(folder: Path, model: Path) -> Ground:
    """Make files of every kind, and a run that is fine."""
    case = valid_case(folder, model)
    case.argv()
    bare = folder / "bare"
    bare.mkdir()
    for file in model.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (bare / file.name).write_bytes(file.read_bytes())
    return Ground(place_of(folder / "places"), dict(case.flags), str(bare))


def all_cases(ground: Ground) -> Iterator[Case]:
    """Every case of every command line, in one order."""
    yield from _train_options(ground)
    yield from _tables(ground)
    yield from _files(ground)
    yield from _commands(ground)


def number_of_keys(cases: Sequence[Case]) -> dict[str, int]:
    """Cases by key."""
    counts: dict[str, int] = {}
    for case in cases:
        key = case.name.partition(" = ")[0]
        counts[key] = counts.get(key, 0) + 1
    return counts


def _train_options(ground: Ground) -> Iterator[Case]:
    for name, field in _fields(config_type(), ""):
        flags = {flag: text for flag, text in ground.base.items() if flag != f"--{name}"}
        argv = tuple(word for flag in flags.items() for word in flag)
        drawn = random.Random(name)
        for value in _drawn(name, _bounds(field), ground, lambda _: True):
            in_file = value.words is None or (value.toml is not None and drawn.random() < _SHARE_IN_FILES)
            said = f"train --{name} = {value.name}"
            if in_file:
                argv_of_file = (*argv, "--config", _FILE, "--dry-run")
                yield Case(f"{said} in a file", train.main, argv_of_file, f"{name} = {value.toml}\n")
            else:
                yield Case(said, train.main, (*argv, f"--{name}", *(value.words or ()), "--dry-run"))


def _drawn(key: str, bounds: tuple[float, ...], ground: Ground, fits: Callable[[Value], bool]) -> Iterator[Value]:
    """The values beside its bounds, and of the others so many as there is time for, other ones for every key."""
    near, others = list[Value](), list[Value]()
    for value in filter(fits, values(bounds, ground.places)):
        (near if value.name.startswith("bound ") else others).append(value)
    yield from near
    yield from random.Random(key).sample(others, min(_VALUES_A_KEY, len(others)))


def _tables(ground: Ground) -> Iterator[Case]:
    """Keys of the tables that only a file has."""
    run = tuple(word for flag in ground.base.items() for word in flag if flag[0] not in ("--data.path", "--algo"))
    rows = ground.base["--data.path"]
    kinds: tuple[tuple[str, type[Section], str], ...] = (
        ("data.source", DataSource, f"[[data.source]]\nname = 'a'\npath = {rows!r}\n"),
        ("eval.benchmark", EvalBenchmark, f"[[eval.benchmark]]\nname = 'pope'\npath = {rows!r}\n"),
        ("stage", Measure, f"[[stage]]\nname = 'a'\nalgo = 'sft'\ndata.path = {rows!r}\n[[stage]]\nname = 'b'\n"
                           f"from = 'a'\ndata.path = {rows!r}\nevaluate = 'pope'\n"),
    )  # fmt: skip
    for table, kind, whole in kinds:
        own = ("--algo", "sft") if table != "stage" else ()
        own += ("--data.path", rows) if table == "eval.benchmark" else ()
        names = [*kind.model_fields, *(("name", "from", "algo", "run", "data") if table == "stage" else ())]
        for name in names:
            lines = [line for line in whole.splitlines() if not line.startswith(f"{name} =")]
            for value in _drawn(f"{table} {name}", (), ground, lambda one: one.toml is not None):
                if value.toml is not None:
                    text = "\n".join([*lines, f"{name} = {value.toml}", ""])
                    yield Case(f"[[{table}]] {name} = {value.name}", train.main,
                               (*run, *own, "--config", _FILE, "--dry-run"), text)  # fmt: skip
        for value in values((), ground.places):
            if value.toml is not None:
                yield Case(f"{table} = {value.name} in place of tables", train.main,
                           (*run, *own, "--config", _FILE, "--dry-run"), f"{table} = {value.toml}\n")  # fmt: skip


def _files(ground: Ground) -> Iterator[Case]:
    """Files and words that are no option at all."""
    argv = tuple(word for flag in ground.base.items() for word in flag)
    for value in values((), ground.places):
        if value.words is not None:
            yield Case(f"train --config = {value.name}", train.main, (*argv, "--config", *value.words, "--dry-run"))
            yield Case(f"train --dry-run = {value.name}", train.main, (*argv, "--dry-run", *value.words))
            for word in value.words[:1]:
                yield Case(f"train before all flags = {value.name}", train.main, (word, *argv, "--dry-run"))
                if word not in ("h", "help"):
                    yield Case(f"train unknown flag = {value.name}", train.main, (*argv, f"--{word}", "1", "--dry-run"))
        if value.toml is not None:
            yield Case(
                f"a file's first words = {value.name}", train.main, (*argv, "--config", _FILE, "--dry-run"), value.toml
            )
            yield Case(f"an unknown key = {value.name}", train.main, (*argv, "--config", _FILE, "--dry-run"),
                       f"x = {value.toml}\n")  # fmt: skip
    for name, text in {
        "keys within keys": ".".join(["a"] * 20_000) + " = 1\n",
        "tables within tables": "[" + ".".join(["a"] * 5_000) + "]\n",
        "many tables": "".join(f"[t{i}]\n" for i in range(20_000)),
        "a byte-order mark": "\ufeffrun.steps = 3\n",
        "a key twice": "run.steps = 3\nrun.steps = 4\n",
        "a long key": "k" * 100_000 + " = 1\n",
        "an empty key": '"" = 1\n',
        "an escape in a key": '"\\u001b[31m" = 1\n',
        "a section that is a number": "run = 3\n",
        "a section that is a list": "run = []\n",
        "half a character": "run.dir = '\udc80'\n",
    }.items():
        yield Case(f"a file with {name}", train.main, (*argv, "--config", _FILE, "--dry-run"), text)


def _commands(ground: Ground) -> Iterator[Case]:
    rows, gone = ground.base["--data.path"], ground.places["gone"]
    measured = {"benchmark": "mm_rlhf_reward_bench", "model": ground.bare, "data": rows, "out": "measured"}
    kit = {"kit": "evalscope", "kit_python": gone, "model": ground.bare, "tasks": "mme"}
    judged = {"model": ground.bare, "question": "q", "response": "a"}
    source = {"path": rows, "format": "r1_reward"}
    for name, kind, main, base, skipped in (
        ("evaluate", evaluate.Evaluate, evaluate.main, measured, ()),
        ("evaluate", KitCommand, evaluate.main, kit, ()),
        ("judge", judge.Judge, judge.main, judged, ("serve",)),
        ("data check", data.Check, data.main, source, ()),
        ("data show", data.Show, data.main, source | {"row": "1"}, ()),
        ("data import", data.Import, data.main, source | {"out": "store"}, ()),
        ("data export", data.Export, data.main, {"store": gone, "out": "pairs.jsonl", "format": "swift"}, ()),
        ("data judgements", data.Judgements, data.main, source | {"out": "made.jsonl"}, ()),
        ("export", export.Export, export.main, {"source": ground.bare, "out": "exported"}, ()),
        ("remote_rm.serve", serve.ServeOptions, _served, {}, ("probe",)),
    ):
        positional = {"path", "store", "source"} | ({"out"} if kind in (data.Export, export.Export) else set())
        first = name.split()[1:]
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            if field.name in skipped:
                continue
            own = {flag: text for flag, text in base.items() if flag != field.name}
            own |= {"data": gone} if field.name == "endpoint" else {}
            for value in _drawn(f"{name} {field.name}", (), ground, lambda one: one.words is not None):
                assert value.words is not None
                words = {**{flag: (text,) for flag, text in own.items()}, field.name: value.words}
                argv = [word for flag in ("path", "store", "source", "out") if flag in positional and flag in words
                        for word in words[flag]]  # fmt: skip
                for flag, texts in words.items():
                    if flag not in positional:
                        argv += [f"--{flag}", *texts]
                yield Case(f"{name} --{field.name} = {value.name}", main, (*first, *argv))
    for value in values((), ground.places):
        if value.words is not None and value.words[:1] not in ((), ("-h",)):
            yield Case(f"report RUN_DIR = {value.name}", report.main, value.words)


def _served(argv: Sequence[str]) -> int | None:
    return serve.main([*argv, "--probe"])


def _fields(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _bounds(field: FieldInfo) -> tuple[float, ...]:
    told = [*field.metadata, *(one for part in getattr(field.annotation, "__args__", ()) for one in _metadata(part))]
    return tuple(
        float(bound) for one in told for at in ("ge", "gt", "le", "lt") if (bound := getattr(one, at, None)) is not None
    )


def _metadata(annotation: Any) -> list[Any]:
    return [
        bound for one in getattr(annotation, "__metadata__", ()) for bound in (getattr(one, "metadata", None) or [one])
    ]


def main(argv: Sequence[str]) -> int:
    """Run all cases, or a part of them; print the faults and the counts."""
    from orchestrator.tasks.digits_model import build_digits_model

    part, parts = map(int, argv[0].split("/")) if argv else (0, 1)
    wanted = argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        ground = ground_in(Path(folder), build_digits_model(Path(folder) / "model", seed=0))
        work = Path(folder) / "work"
        work.mkdir()
        os.chdir(work)
        cases = list(all_cases(ground))
        random.Random(0).shuffle(cases)
        chosen = [c for c in cases[part::parts] if not wanted or any(w in c.name for w in wanted)]
        print(counted(chosen, tell=print))  # noqa: T201
        os.chdir("/")
    return 0


def counted(cases: Sequence[Case], *, tell: Callable[[str], object]) -> str:
    """Run them, tell each fault, and return the counts as a sentence."""
    faults, slowest, refused = 0, 0.0, 0
    for case in cases:
        ending = case.run()
        slowest, refused = max(slowest, ending.seconds), refused + (ending.code == 2)
        if ending.fault is not None:
            faults += 1
            tell(f"{case.name}: {ending.fault}")
    keys = len(number_of_keys(cases))
    told = f"{faults} faults, {refused} refused and the rest accepted, slowest {slowest:.1f} s"
    return f"{len(cases)} settings of {keys} keys: {told}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
