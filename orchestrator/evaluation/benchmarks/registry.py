"""The benchmarks by name: a new one is its module and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.items import Benchmark

BENCHMARKS = (
    "judgements",
    "llava_bench",
    "math_vista",
    "mm_rlhf_reward_bench",
    "mm_vet",
    "mmbench",
    "mme",
    "mmhal",
    "mmmu",
    "multimodal_reward_bench",
    "multimodal_reward_bench_2",
    "pope",
    "reward_bench_2",
    "safety_bench",
    "seed_bench",
    "seed_bench_likelihood",
    "vl_reward_bench",
)
"""Modules beside this one, each with a ``BENCHMARK``."""
_RELEASED_AS = {
    "llava_bench": ("LLaVA-Bench-COCO", "LLaVA-Bench-in-the-Wild"),
    "mmbench": ("MMBench_DEV_EN", "MMBench_DEV_CN", "MMBench_DEV_EN_V11", "MMBench_DEV_CN_V11"),
    "mmhal": ("MMHal-Bench",),
    "mmmu": ("MMMU_DEV_VAL",),
    "safety_bench": ("MM-RLHF-SafetyBench",),
    "seed_bench": ("SEEDBench_IMG", "SEED-Bench-Image"),
}
"""Names of files and folders that are more than a benchmark's own. Not told by their beginning: MMMU-Pro is no MMMU."""


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        RefusedInput: there is none.
    """
    if name not in BENCHMARKS:
        raise RefusedInput(f"benchmark = {name!r}: expected one of {', '.join(BENCHMARKS)}")
    return import_module(f"{__package__}.{name}").BENCHMARK


@dataclass(frozen=True, slots=True)
class Holdings:
    """Which benchmarks a folder holds."""

    paths: Mapping[str, tuple[Path, ...]]
    """By the name of the benchmark, in the order of ``BENCHMARKS``; one each, as a rule."""
    unknown: tuple[str, ...]
    """Names that are those of no benchmark."""


def holdings(folder: Path) -> Holdings:
    """What of a folder is named after a benchmark, a subfolder or a file, by its letters and digits: VL-RewardBench.

    Raises:
        RefusedInput: it is no folder, or nothing in it is.
    """
    if not folder.is_dir():
        raise RefusedInput(f"data = {str(folder)!r} is no folder, and all benchmarks of one are asked for")
    found: dict[str, list[Path]] = {name: [] for name in BENCHMARKS}
    by_letters, unknown = {_letters(name): name for name in BENCHMARKS}, list[str]()
    by_letters |= {_letters(other): name for name, others in _RELEASED_AS.items() for other in others}
    for path in sorted(one for one in folder.iterdir() if not one.name.startswith(".")):
        name = path.name if path.is_dir() else path.name.partition(".")[0]
        known = by_letters.get(_letters(name))
        if known is None:
            unknown.append(path.name)
        else:
            found[known].append(path)
    if not any(found.values()):
        raise RefusedInput(f"data folder {str(folder)!r} holds nothing named after one of {', '.join(BENCHMARKS)}")
    return Holdings({name: tuple(paths) for name, paths in found.items() if paths}, tuple(unknown))


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
