"""TRL's side of the race, run by an interpreter of its own: see ``benchmarks/vs_trl_grpo.py``.

python run_grpo.py MODEL DATA PROMPTS SAMPLES NEW_TOKENS STEPS -> one JSON line with the seconds of every step
"""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def right_answer(completions, label, **_):
    """The reward of our own service's rules, without its judge: format and accuracy."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    found = [re.findall(r"<answer> (.*?) </answer>", text) for text in texts]
    return [1.5 if len(f) == 1 and f[0] == want else 0.0 for f, want in zip(found, label, strict=True)]


class Clock(TrainerCallback):
    """When each optimizer step ended."""

    def __init__(self):
        self.ends = [time.monotonic()]

    def on_step_end(self, *_, **__):
        self.ends.append(time.monotonic())


def main():
    model_path, data, prompts, samples, new_tokens, steps = sys.argv[1:3] + [int(n) for n in sys.argv[3:7]]
    torch.set_num_threads(os.cpu_count() or 1)
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()][: prompts * steps]
    dataset = Dataset.from_list([_row(row, Path(data).parent) for row in rows]).cast_column("image", Image())
    clock = Clock()
    lengths = []

    def lengths_too(completions, completion_ids, **_):
        lengths.append([len(ids) for ids in completion_ids])
        return [0.0] * len(completions)

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32),
            processing_class=AutoProcessor.from_pretrained(model_path, padding_side="left"),
            reward_funcs=[right_answer, lengths_too],
            train_dataset=dataset,
            callbacks=[clock],
            args=GRPOConfig(
                output_dir=folder, per_device_train_batch_size=prompts * samples, num_generations=samples,
                max_completion_length=new_tokens, max_steps=steps, beta=0.0, num_iterations=1, temperature=1.0,
                learning_rate=1e-6, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
                save_strategy="no", disable_tqdm=True, logging_steps=1000,
            ),
        )  # fmt: skip
        trainer.train()
    seconds = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)]
    flat = [n for step in lengths for n in step]
    print(json.dumps({"seconds": seconds, "mean_length": sum(flat) / len(flat)}))  # noqa: T201


def _row(row, root):
    turns = json.loads(row["message"])
    image, text = turns[0]["content"]
    return {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text["text"]}]}],
        "image": str(root / image["image"]),
        "label": re.findall(r"<answer>(.*?)</answer>", row["answer"][0])[0],
    }


if __name__ == "__main__":
    main()
