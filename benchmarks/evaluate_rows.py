"""What a benchmark of many rows costs beside generation: a judge of pairs over real Ray and vLLM.

    PYTHONPATH=. python benchmarks/evaluate_rows.py OUT [--rows 10000] [--tokens 64]

Writes a file in VL-RewardBench's layout whose ids repeat, with a thousand pictures, and has a tiny model of random
weights judge it, each pair in both orders. Prints where the time went and the driver's memory as rows go by.
"""

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import machine_lines
from PIL import Image

from orchestrator import evaluate
from orchestrator.evaluation import benchmark_run
from orchestrator.evaluation.scorers import engines
from orchestrator.tasks.digits_model import build_digits_model

_PICTURES, _SIDE = 1000, (320, 240)
_BATCH = 500


def write_rows(path: Path, count: int) -> Path:
    """Rows as they are released, shard after shard of the table."""
    rng = np.random.default_rng(0)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("query", pa.string()),
            ("response", pa.list_(pa.string())),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("human_ranking", pa.list_(pa.int64())),
        ]
    )
    pictures = [_jpeg(rng) for _ in range(min(count, _PICTURES))]
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, _BATCH):
            rows = [_row(i, pictures[i % len(pictures)]) for i in range(start, min(count, start + _BATCH))]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return path


def _row(number: int, picture: bytes) -> dict[str, Any]:
    responses = [f"one and then two {number}", "two and then one"]
    return {
        "id": f"RLAIF-V-{number % 97}",
        "query": "which digit is it ?",
        "response": responses,
        "image": {"bytes": picture, "path": None},
        "human_ranking": [number % 2, 1 - number % 2],
    }


def _jpeg(rng: np.random.Generator) -> bytes:
    small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize(_SIDE).save(out, "JPEG", quality=90)
    return out.getvalue()


class Clock:
    """Seconds by what they were spent on, and the driver's memory behind each shard."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: list[tuple[int, float]] = []

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        begun = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun

    def watch(self) -> None:
        """Wrap the parts of the command whose time is told apart."""

        def timed(place: Any, name: str, told: str) -> None:
            inner = getattr(place, name)

            def outer(*args: Any, **options: Any) -> Any:
                with self.of(told):
                    return inner(*args, **options)

            setattr(place, name, outer)

        timed(evaluate, "usable_items", "reading")
        timed(engines, "lengths", "encoding")
        timed(engines, "generate", "generation")
        timed(benchmark_run, "scores_of", "counting, with intervals")
        timed(evaluate, "write_scores", "writing scores")
        tell = benchmark_run._tell

        def told(kept: Any, wanted: int) -> None:
            self.memory.append((len(kept), psutil.Process().memory_info().rss / 2**20))
            tell(kept, wanted)

        benchmark_run._tell = told


def told(clock: Clock, total: float, count: int) -> Sequence[str]:
    """The table."""
    spent = dict(clock.seconds)
    spent["everything else: imports, Ray, shards"] = total - sum(spent.values())
    lines = ["| | s | ms a row |", "|---|---|---|"]
    lines += [f"| {name} | {value:.1f} | {1000 * value / count:.2f} |" for name, value in spent.items()]
    outside = total - spent["generation"]
    lines += [f"| whole | {total:.1f} | {1000 * total / count:.2f} |", ""]
    lines.append(f"outside generation: {100 * outside / total:.1f} % of the time")
    (first, low), (last, high) = clock.memory[0], clock.memory[-1]
    lines.append(f"driver: {low:.0f} MiB behind {first} rows, {high:.0f} MiB behind {last}")
    return lines


def main() -> None:
    """Write, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    model = build_digits_model(asked.out / "model", seed=0)
    file = write_rows(asked.out / "rows.parquet", asked.rows)
    clock = Clock()
    clock.watch()
    words = ["--benchmark", "vl_reward_bench", "--model", str(model), "--data", str(file)]
    words += ["--out", str(asked.out / "answers"), "--rollout.max_new_tokens", str(asked.tokens)]
    begun = time.monotonic()
    code = evaluate.main(words)
    total = time.monotonic() - begun
    if code:
        raise SystemExit(code)
    sys.stdout.write("\n".join([*told(clock, total, asked.rows), *machine_lines()]) + "\n")


if __name__ == "__main__":
    main()
