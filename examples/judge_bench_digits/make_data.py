"""Write what the example learns from and is measured on, and a small model.

    python examples/judge_bench_digits/make_data.py runs/judge_bench_digits_data

The training files are those of the embedded task digits. ``bench.parquet`` has a row for each picture that is in none
of them, in the columns of VL-RewardBench's release: the picture's bytes, two responses, ``human_ranking`` with 0 for
the better one. As there, ids repeat, and say the category by what they begin with.
"""

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.tasks.digits import QUESTION, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model

_TEMPLATE = "{question} {first} 1 , {second} 2 ."
"""The words that the judge learns from, as the embedded task has them."""
_BEGINNINGS = ("digits", "hallucination_pair", "mathverse")
"""Of ids: general, hallucination and reasoning."""
_BETTER_SECOND = 50
"""Of so many rows one lists the better response second; nearly all list it first, as in the release."""
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("query", pa.string()),
        ("response", pa.list_(pa.string())),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("human_ranking", pa.list_(pa.int64())),
        ("models", pa.list_(pa.string())),
        ("query_source", pa.string()),
    ]
)


def bench_rows(held_out: Path) -> list[dict[str, object]]:
    """A row a picture, from the two judgements of it."""
    rows: list[dict[str, object]] = []
    for line in held_out.read_text().splitlines()[::2]:
        image, text = json.loads(json.loads(line)["message"])[0]["content"]
        words = text["text"].removeprefix(QUESTION).split()
        right, wrong = words[0], words[3]
        number, name = len(rows), image["image"]
        first = number % _BETTER_SECOND > 0
        rows.append(
            {
                "id": f"{_BEGINNINGS[number % len(_BEGINNINGS)]}-{right}",
                "query": QUESTION,
                "response": [right, wrong] if first else [wrong, right],
                "image": {"bytes": (held_out.parent / name).read_bytes(), "path": Path(name).name},
                "human_ranking": [0, 1] if first else [1, 0],
                "models": ["label", "another digit"] if first else ["another digit", "label"],
                "query_source": "digits",
            }
        )
    return rows


def main(root: Path) -> None:
    files = build_digits_data(root, seed=0)
    build_digits_model(root / "model", seed=0)
    (root / "template.txt").write_text(_TEMPLATE)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(bench_rows(files.held_out), schema=_SCHEMA), sink)
    (root / "bench.parquet").write_bytes(sink.getvalue())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
