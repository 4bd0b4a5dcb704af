"""Does memory depend on the store? A store of a million rows is written, opened, checked, shuffled and iterated.

PYTHONPATH=. python benchmarks/store_stream.py [ROWS]

Prints, for each pass, rows a second and the resident memory after 10 %, 50 % and all of the rows.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
from machine import machine_lines

from orchestrator.data.order import assign_split
from orchestrator.data.records import Instruction, Response, StoredMedia
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import StoreWriter

_HELD_OUT_FRAC = 0.01
_SHOWN = (0.1, 0.5, 1.0)


def main() -> None:
    """Build the store in one process and read it in others, so that no pass hides in the memory of another."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        print("| pass | rows/s | MiB before | " + " | ".join(f"MiB at {s:.0%}" for s in _SHOWN) + " |")  # noqa: T201
        print("| --- " * (len(_SHOWN) + 3) + "|", flush=True)  # noqa: T201
        _alone(_write, folder, rows)
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        _alone(_check, folder, rows)
        _alone(_shuffle, folder)
        print(f"store: {size / 2**20:.0f} MiB in files")  # noqa: T201


def _alone(work: Callable[..., None], *arguments: object) -> None:
    """Run in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        sys.exit(f"{work.__name__} failed")


def _write(folder: Path, rows: int) -> None:
    with StoreWriter(
        folder,
        reader="plain_dpo",
        source_name="rows.jsonl",
        source_sha256="0" * 64,
        media_root=folder.parent,
        held_out_frac=_HELD_OUT_FRAC,
    ) as writer:
        for row in _measured("write", _synthetic(rows), rows):
            writer.add(row)
        writer.commit()


def _check(folder: Path, rows: int) -> None:
    started = time.monotonic()
    store = PreferenceStore(folder)
    opened = time.monotonic() - started
    seen = sum(1 for _ in _measured("check", store.rows(), rows))
    assert seen == rows
    print(f"opened in {opened:.2f} s, {len(store.groups)} row groups", flush=True)  # noqa: T201


def _shuffle(folder: Path) -> None:
    store = PreferenceStore(folder)
    rows = store.num_instructions("train")
    seen = np.zeros(store.manifest.counts.instructions, dtype=bool)
    for row in _measured("shuffled", store.iterate("train", seed=0), rows):
        number = int(row.uid[5:])
        assert not seen[number]
        seen[number] = True
    assert seen.sum() == rows
    started, start = time.monotonic(), rows - 1
    (last,) = store.iterate("train", seed=0, start=start)
    print(f"resumed at row {start} in {time.monotonic() - started:.2f} s: {last.uid}", flush=True)  # noqa: T201


def _synthetic(rows: int) -> Iterator[Instruction]:
    for number in range(rows):
        content = [{"type": "image"}, {"type": "text", "text": f"question {number} ?"}]
        media = StoredMedia(sha256=f"{number:064x}", path=f"{number}.png", size_bytes=100, width=8, height=8)
        messages = ({"role": "user", "content": content},)
        yield Instruction(
            uid=f"rows-{number:07d}",
            split=assign_split(messages, [media.sha256], held_out_frac=_HELD_OUT_FRAC),
            messages=messages,
            media=(media,),
            responses=(Response(text=f"right {number}", rank=1), Response(text=f"wrong {number}", rank=2)),
        )


def _measured(name: str, rows: Iterable[Instruction], total: int) -> Iterator[Instruction]:
    marks = [round(share * total) for share in _SHOWN]
    process, memory = psutil.Process(), []
    before, started = process.memory_info().rss, time.monotonic()
    for number, row in enumerate(rows, start=1):
        yield row
        if number in marks:
            memory.append(process.memory_info().rss)
    rate = total / (time.monotonic() - started)
    cells = " | ".join(f"{value / 2**20:.0f}" for value in memory)
    print(f"| {name} | {rate:,.0f} | {before / 2**20:.0f} | {cells} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
