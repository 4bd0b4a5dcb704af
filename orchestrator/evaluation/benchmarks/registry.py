"""The benchmarks by name: a new one is its module and a line here."""

from importlib import import_module

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
    "vl_reward_bench",
)
"""Modules beside this one, each with a ``BENCHMARK``."""


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        RefusedInput: there is none.
    """
    if name not in BENCHMARKS:
        raise RefusedInput(f"benchmark = {name!r}: expected one of {', '.join(BENCHMARKS)}")
    return import_module(f"{__package__}.{name}").BENCHMARK
