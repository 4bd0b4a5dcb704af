"""How long ranks wait for each other in a step, dealt by tokens alone and by work, and what planning takes.

    python -m benchmarks.microbatches

4,096 prompts with eight responses of log-normal length each, as Qwen2.5-VL-7B would work on them with a frozen tower.
Waiting is the share of the ranks' time in which they wait: 1 - work / (ranks x time of the slowest of every round).
"""

import random
import time

from transformers import Qwen2_5_VLConfig

from benchmarks.machine import machine_lines
from orchestrator.cluster.microbatches import SampleSize, Shares, plan_samples
from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights, row_weights

_PROMPTS, _RESPONSES, _BUDGET = 4096, 8, 16_384
_TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064,
}  # fmt: skip


def main() -> None:
    """Print one row for each layout and number of ranks."""
    weights = row_weights(Qwen2_5_VLConfig(text_config=_TEXT), tower_runs=False)
    print(*machine_lines(), "", sep="\n")  # noqa: T201
    print("| rows | ranks | waiting, by tokens | waiting, by work | planned in, s of processor |")  # noqa: T201
    print("|---|---|---|---|---|")  # noqa: T201
    for longest in (2048, 12_288):
        samples = _drawn(longest)
        for share in (True, False):
            layout = f"{'shared' if share else 'apart'}, to {longest:,} tokens"
            for ranks in (8, 64, 256):
                waits, took = [], 0.0
                for chosen in (TOKENS_ALONE, weights):
                    start = time.process_time()
                    plan = plan_samples(
                        samples, share_prompts=share, num_ranks=ranks, token_budget=_BUDGET, weights=chosen
                    )
                    took = time.process_time() - start
                    waits.append(f"{_waiting(samples, plan, weights, share=share):.2%}")
                print(f"| {layout} | {ranks} | {waits[0]} | {waits[1]} | {took:.2f} |", flush=True)  # noqa: T201


def _drawn(longest: int) -> list[SampleSize]:
    rng = random.Random(0)
    samples = []
    for prompt in range(_PROMPTS):
        prompt_len = rng.randint(200, 1500)
        lengths = [1 + min(longest, int(rng.lognormvariate(6.5, 0.9))) for _ in range(_RESPONSES)]
        samples += [SampleSize(str(prompt), prompt_len, prompt_len + length) for length in lengths]
    return samples


def _waiting(samples: list[SampleSize], plan: Shares, weights: RowWeights, *, share: bool) -> float:
    work = [[_work([samples[i] for i in batch], weights, share=share) for batch in own] for own in plan]
    return 1.0 - sum(map(sum, work)) / (len(plan) * sum(map(max, zip(*work, strict=True))))


def _work(batch: list[SampleSize], weights: RowWeights, *, share: bool) -> int:
    rows: dict[str | int, list[SampleSize]] = {}
    for index, sample in enumerate(batch):
        rows.setdefault(sample.uid if share else index, []).append(sample)
    each = [weights.of_row(some[0].prompt_len, [s.length - s.prompt_len for s in some], 0) for some in rows.values()]
    return sum(each) if share else max(each, default=0) * len(each)


if __name__ == "__main__":
    main()
