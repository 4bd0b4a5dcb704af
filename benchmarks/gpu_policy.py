"""The policy's update alone, on one device: how fast, how full and how exact each of its choices is.

    python -m benchmarks.gpu_policy --offload --checkpointing on          7b on 80 GB, and 135 GB of the host's
    python -m benchmarks.gpu_policy --offload --rows shared               7b on 139 GiB
    python -m benchmarks.gpu_policy --small --plain-optimizer             on a CPU, in minutes

On one GPU nothing is sharded: weights, gradients and Adam's state take up to 20 bytes a trained weight in ZeRO-2, so
165 GB of 7b and 75 of 3b. --offload leaves 4 of them on the GPU, 33 GB of 7b. Without checkpointing this batch's
activations take some 60 GB in shared rows and 170 in padded ones. These are sums and no measurements.

Needs torch, transformers and DeepSpeed (with --plain-optimizer: pydantic in its place); neither Ray nor vLLM, and no
download: weights of Qwen2.5-VL's shapes are random, images are noise. Batches come from the trainer's own collator, the
forward is the trainer's own module, built by its own loader.

Every choice has a process of its own, which ends with all that it kept. It prints sampled tokens a second, MFU
(operations that the layout needs without filling, recomputation not counted, of the device's dense bfloat16), peak
memory of the steps (of a CPU's process, from its start), and the largest and mean gap of log-probs to float32.
"""

import argparse
import gc
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from algorithms.records import Sequence
from benchmarks.gpu_learners import DeepSpeedLearner, PlainLearner
from benchmarks.gpu_model import CONTROL_TOKENS, SHAPES, RandomWeights, write_folder
from benchmarks.machine import machine_lines
from workers.models import loading, policy_module
from workers.models.loading import ModelSpec, freeze_modules, load_model, train_without_dropout
from workers.models.policy_module import PolicyModule
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.media import probe_image
from workers.multimodal.processor import image_expansions, load_processor

_PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "4090": 165.0}
"""Dense bfloat16, from the vendor's data sheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to run the update."""

    attention: str
    shared: bool
    """Responses share the row of their prompt, or have padded rows of their own."""
    checkpointing: bool
    frozen: bool
    """The vision tower, which then sees an image once."""
    head: str
    """``whole``: its logits are kept; ``pieces``: it is computed again, half a gigabyte at a time; ``frozen``: not
    trained, its logits are not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a choice was seen to do."""

    seconds: float
    tflop: float
    gib: float
    gap: Tensor


def main() -> int:
    """Print the table; a choice that this machine has no code or memory for says so in its row."""
    options = _options()
    if options.only is not None:
        return _only(options, Choice(**json.loads(options.only)))
    device = _device()
    print(*machine_lines(), f"device: {_name(device)}, options: {vars(options)}", "", sep="\n")  # noqa: T201
    print("| attention | rows | checkpointing | tower | head |", end="")  # noqa: T201
    print(" sampled tokens/s | MFU | TFLOPS | peak, GiB | log-prob gap, largest | mean |")  # noqa: T201
    print("|" + "---|" * 11, flush=True)  # noqa: T201
    failed = False
    for choice in _choices(options):
        own = [sys.executable, "-m", "benchmarks.gpu_policy", *sys.argv[1:], "--only", json.dumps(asdict(choice))]
        failed |= subprocess.run(own).returncode != 0
    return int(failed)


def _only(options: argparse.Namespace, choice: Choice) -> int:
    """Print one row."""
    device = _device()
    peak = next((tflops for key, tflops in _PEAK_TFLOPS.items() if key in _name(device)), None)
    told = f"| {choice.attention} | {'shared' if choice.shared else 'padded'} "
    told += f"| {'on' if choice.checkpointing else 'off'} | {'frozen' if choice.frozen else 'trained'} | {choice.head} "
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options, device)
        try:
            found = bench.run(choice)
        except (ImportError, ValueError, RuntimeError) as error:  # out of memory is a RuntimeError
            print(f"{told}| {type(error).__name__}: {str(error).splitlines()[0][:90]} |", flush=True)  # noqa: T201
            return 0
    speed = found.tflop / found.seconds
    mfu = f"{speed / peak:.1%}" if peak else "?"
    told += f"| {bench.sampled / found.seconds:,.0f} | {mfu} | {speed:.2f} | {found.gib:.1f} "
    print(f"{told}| {found.gap.max():.1e} | {found.gap.mean():.1e} |", flush=True)  # noqa: T201
    return 0


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="7b")
    parser.add_argument("--small", action="store_true", help="a toy's shape and batch, for a CPU")
    parser.add_argument("--attention", default="sdpa", help="values of model.attention, with commas")
    parser.add_argument("--rows", default="shared,padded")
    parser.add_argument("--checkpointing", default="off,on")
    parser.add_argument("--tower", default="trained,frozen")
    parser.add_argument("--head", default="whole", help="whole, pieces and frozen, with commas")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--plain-optimizer", action="store_true", help="torch's AdamW on the weights, no DeepSpeed")
    parser.add_argument("--zero-stage", type=int, default=2)
    parser.add_argument("--offload", action="store_true", help="the optimizer's state on the host")
    for name, default in (
        ("microbatches", 2), ("prompts", 4), ("responses", 8), ("prompt-tokens", 256), ("response-tokens", 512),
        ("side", 448), ("steps", 3),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.small:
        options.shape, options.prompts, options.responses, options.side = "small", 2, 4, 56
        options.prompt_tokens, options.response_tokens = 32, 48
    return options


def _choices(options: argparse.Namespace) -> Iterator[Choice]:
    lists = (options.attention, options.rows, options.checkpointing, options.tower, options.head)
    for attention, rows, checkpointing, tower, head in itertools.product(*(some.split(",") for some in lists)):
        yield Choice(
            attention=attention,
            shared=rows == "shared",
            checkpointing=checkpointing == "on",
            frozen=tower == "frozen",
            head=head,
        )


class Bench:
    """One model's shape and one step's sequences, the same for every choice."""

    def __init__(self, folder: Path, options: argparse.Namespace, device: torch.device) -> None:
        self._folder, self._options, self._device = folder, options, device
        self._config = write_folder(folder, options.shape, side=options.side)
        loading.AutoModelForImageTextToText = RandomWeights(self._config, device)  # type: ignore[assignment,misc]
        self._parts = self._sequences(np.random.default_rng(0))
        self.sampled = sum(len(s.input_ids) - s.prompt_len for part in self._parts for s in part)
        self._exact = self._logprobs(self._module("float32", Choice(**_PLAIN)), self._batches("float32", shared=False))
        gc.collect()  # a model that keeps features refers to itself
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def run(self, choice: Choice) -> Found:
        """Time its steps after a first one that is not counted, and compare what it scores before them.

        Raises:
            ImportError, ValueError, RuntimeError: this machine has not what it takes.
        """
        if choice.head == "pieces":
            policy_module.BYTES_KEPT = {"cuda": 1 << 29, "cpu": 1 << 18}
        dtype = "bfloat16"
        module, batches = self._module(dtype, choice), self._batches(dtype, shared=choice.shared)
        tflop = self._tflop(module, choice)
        gap = (self._logprobs(module, batches) - self._exact).abs()
        learner = self._learner(module)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = []
        for _ in range(1 + self._options.steps):
            start = time.perf_counter()
            learner.step(batches)
            if self._device.type == "cuda":
                torch.cuda.synchronize()
            took.append(time.perf_counter() - start)
        used = torch.cuda.max_memory_allocated() if self._device.type == "cuda" else _most_resident()
        return Found(seconds=float(np.mean(took[1:])), tflop=tflop, gib=used / 2**30, gap=gap)

    def _learner(self, module: PolicyModule) -> PlainLearner | DeepSpeedLearner:
        if self._options.plain_optimizer:
            return PlainLearner(module)
        return DeepSpeedLearner(module, stage=self._options.zero_stage, offload=self._options.offload)

    def _module(self, dtype: Any, choice: Choice) -> PolicyModule:
        spec = ModelSpec(path=str(self._folder), dtype=dtype, attention=choice.attention, share_prompts=choice.shared)
        model, adapter = load_model(spec)
        freeze_modules(model, adapter, ("vision",) if choice.frozen else ())
        if choice.head == "frozen":
            model.get_output_embeddings().requires_grad_(False)
        if choice.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            train_without_dropout(model)
        module = PolicyModule(model, lockstep=False)
        keep_features(module, adapter)
        return module

    def _batches(self, dtype: Any, *, shared: bool) -> list[Batch]:
        spec = ModelSpec(path=str(self._folder), dtype=dtype, share_prompts=shared)
        collate = Collator.of(spec)
        return [collate(part).to(self._device) for part in self._parts]

    @torch.no_grad()
    def _logprobs(self, module: PolicyModule, batches: list[Batch]) -> Tensor:
        return torch.cat([module(batch).logprobs.float() for batch in batches]).cpu()

    def _sequences(self, rng: np.random.Generator) -> list[list[Sequence]]:
        """Micro-batches of prompts with an image each and responses of log-normal length."""
        options, side = self._options, self._options.side
        (image,) = image_expansions(load_processor(self._folder), self._config, [(side, side)])
        parts = []
        for number in range(options.microbatches):
            part = []
            for prompt in range(options.prompts):
                file = self._folder / f"{number}-{prompt}.png"
                Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file)
                media = (probe_image(file, max_pixels=side * side),)
                words = rng.integers(len(CONTROL_TOKENS), self._vocabulary, options.prompt_tokens)
                for index in range(options.responses):
                    length = int(min(3.0, rng.lognormal(-0.1, 0.5)) * options.response_tokens) + 1
                    answer = rng.integers(len(CONTROL_TOKENS), self._vocabulary, length)
                    part.append(
                        Sequence(
                            uid=f"{number}-{prompt}", sample_index=index, media=media,
                            input_ids=np.concatenate([image, words, answer]), prompt_len=len(image) + len(words),
                        )
                    )  # fmt: skip
            parts.append(part)
        return parts

    @property
    def _vocabulary(self) -> int:
        return self._config.get_text_config().vocab_size

    def _tflop(self, module: PolicyModule, choice: Choice) -> float:
        """Of a step: forward once and backward twice; a frozen tower's features are kept before it begins."""
        text, sizes = self._config.get_text_config(), {name: p.numel() for name, p in module.named_parameters()}
        layers = sum(n for name, n in sizes.items() if ".language_model.layers." in name)
        tower = 0 if choice.frozen else sum(n for name, n in sizes.items() if ".visual." in name)
        operations, seen = 0.0, set[str]()
        for sequence in itertools.chain.from_iterable(self._parts):
            once = not choice.shared or sequence.uid not in seen
            seen.add(sequence.uid)
            prompt, answer = sequence.prompt_len, len(sequence.input_ids) - sequence.prompt_len
            pairs = answer * (prompt + answer / 2) + (prompt * prompt / 2 if once else 0.0)
            operations += layers * (answer + (prompt if once else 0))
            operations += 2 * text.num_hidden_layers * text.hidden_size * pairs
            operations += text.hidden_size * text.vocab_size * answer
            operations += tower * (self._options.side // 14) ** 2 if once else 0
        return 3 * 2 * operations / 1e12


_PLAIN: dict[str, Any] = {
    "attention": "sdpa", "shared": False, "checkpointing": False, "frozen": True, "head": "whole",
}  # fmt: skip


def _most_resident() -> int:
    """Of this process, whatever it did."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
