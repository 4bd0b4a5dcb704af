"""The lower bound of an online step, phase by phase, and what our plan of it reaches.

PYTHONPATH=. python benchmarks/roofline.py MODEL_FOLDER CLUSTER.toml [--section.key value ...]
    [--prompt 400 --image 300 --answer 350 --longest 2048 | --rollouts RUN/rollouts/STEP.parquet --prompt .. --image ..]
    [--reach_flops 0.4]

MODEL_FOLDER needs a config.json and nothing else; CLUSTER.toml says ``gpu = "H100"``, or its numbers. Without lengths,
prompts and answers are as long as the options allow. ``--answer`` is a mean: lengths are log-normal, the longest being
``--longest``. No GPU is used and nothing is started.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.roofline.hardware import Reach
from orchestrator.cluster.roofline.lengths import Lengths, drawn_lengths, log_normal, longest_lengths
from orchestrator.cluster.roofline.plan import longest_image, machine_of_cluster, step_question
from orchestrator.cluster.roofline.step import step_bound
from orchestrator.cluster.roofline.table import describe_bound_table, describe_excess, describe_lengths, describe_reach
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


def main() -> int:
    """Print the table; 2 for what cannot be planned."""
    options, rest = _parser().parse_known_args()
    algo = [] if "--algo" in rest else ["--algo", "stable_reinforce"]
    own = ["--model.path", options.model, "--placement.cluster", options.cluster, "--data.path", "unread.jsonl"]
    try:
        config, _ = load_config([*algo, *own, *rest])
        cluster, plan = plan_run(config)
        config = settled_dtype(config, plan)
        machine = machine_of_cluster(cluster)
        if machine is None:
            raise RefusedInput(f"{options.cluster!r} has no GPUs, or does not say gpu = their kind")
        asked = step_question(config, plan, machine, _lengths(options, config))
    except RefusedInput as error:
        sys.stderr.write(f"refused: {error}\n")
        return 2
    asked = replace(asked, reach=replace(Reach(), flops=options.reach_flops))
    step = step_bound(asked)
    told = [describe_lengths(asked.lengths), *describe_bound_table(step), *describe_excess(step)]
    print("\n".join([*told, describe_reach(asked.reach)]))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("cluster")
    for name in ("prompt", "image", "longest"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--answer", type=float)
    parser.add_argument("--rollouts", type=Path)
    parser.add_argument("--reach_flops", type=float, default=Reach().flops)
    return parser


def _lengths(options: argparse.Namespace, config: TrainConfig) -> Lengths:
    prompt = options.prompt or config.data.max_prompt_tokens
    image = min(prompt, longest_image(config) if options.image is None else options.image)
    if options.rollouts is not None:
        found = [len(ids) for ids in pq.read_table(options.rollouts)["completion_ids"].to_pylist()]
        answers = [found[i % len(found)] for i in range(config.samples_per_step)]
    elif options.answer is not None:
        longest = options.longest or config.rollout.max_new_tokens
        answers = log_normal(config.samples_per_step, mean=options.answer, longest=longest)
    elif options.prompt is None:
        return longest_lengths(config, image=image)
    else:
        answers = [config.rollout.max_new_tokens] * config.samples_per_step
    return drawn_lengths(config, prompt=prompt, image=image, answers=answers)


if __name__ == "__main__":
    sys.exit(main())
