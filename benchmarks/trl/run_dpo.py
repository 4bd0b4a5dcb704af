"""TRL's side of the race, run by an interpreter of its own: see ``benchmarks/vs_trl_dpo.py``.

python run_dpo.py MODEL PAIRS PAIRS_A_STEP STEPS -> one JSON line with the seconds of every step and the peak memory
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import DPOConfig, DPOTrainer


class Clock(TrainerCallback):
    """When each optimizer step ended."""

    def __init__(self):
        self.ends = [time.monotonic()]

    def on_step_end(self, *_, **__):
        self.ends.append(time.monotonic())


def main():
    model_path, file, batch, steps = *sys.argv[1:3], *map(int, sys.argv[3:5])
    torch.set_num_threads(os.cpu_count() or 1)
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    dataset = Dataset.from_list([_row(row) for row in rows]).cast_column("image", Image())
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32),
            processing_class=AutoProcessor.from_pretrained(model_path),
            train_dataset=dataset,
            callbacks=[clock],
            args=DPOConfig(
                output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, beta=0.1, learning_rate=1e-6,
                max_length=None, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
                save_strategy="no", disable_tqdm=True, logging_steps=1000,
            ),
        )  # fmt: skip
        trainer.train()
    seconds = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gib": peak}))  # noqa: T201


def _row(row):
    def turn(role, text, *parts):
        return [{"role": role, "content": [*parts, {"type": "text", "text": text}]}]

    return {
        "prompt": turn("user", row["prompt"], {"type": "image"}),
        "chosen": turn("assistant", row["chosen"]),
        "rejected": turn("assistant", row["rejected"]),
        "image": row["image"],
    }


if __name__ == "__main__":
    main()
