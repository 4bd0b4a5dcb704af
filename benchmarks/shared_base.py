"""What placement.share_base saves: PPO's four roles in one process, on one base and with a model each.

python benchmarks/shared_base.py [HIDDEN LAYERS]
"""

import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from machine import machine_lines

from algorithms.algorithm import ScalarHead
from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.specs import base_spec, critic_spec, policy_spec, reference_spec
from orchestrator.config import TrainConfig, load_config
from orchestrator.tasks.digits_model import build_digits_model
from workers.backends.deepspeed_engine import init_process_group
from workers.models.loading import load_model
from workers.policy import PolicyWorker

_CRITIC = ("--critic.init", "reward", "--critic.path")
_MIB = 2**20
_BASE, _SHARED, _APART = _MODES = ("one base", "four roles on one base", "four roles, a model each")
_PREPARE = "prepare"


def main() -> None:
    """Measure each kind of process by itself, and print what it holds against what one base does."""
    if len(sys.argv) == 5:
        mode, model, reward, small = sys.argv[1], *map(Path, sys.argv[2:])
        if mode == _PREPARE:
            _prepare(model, reward)
        else:
            print(json.dumps(_measured(mode, model, reward, small)))  # noqa: T201
        return
    hidden, layers = map(int, sys.argv[1:3] or (1024, 12))
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = build_digits_model(root / "model", seed=0, hidden=hidden, layers=layers)
        places = [model, root / "reward", build_digits_model(root / "small", seed=0)]
        _in_a_process(_PREPARE, places)
        rows = {mode: json.loads(_in_a_process(mode, places).splitlines()[-1]) for mode in _MODES}
    one = rows[_BASE]
    print("| process | parameters, MiB | of one base | resident, MiB | of one base |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    for mode, row in rows.items():
        print(f"| {mode} | " + " | ".join(f"{a:.0f} | {a / b:.3f}" for a, b in zip(row, one, strict=True)) + " |")  # noqa: T201


def _in_a_process(mode: str, places: list[Path]) -> str:
    command = [sys.executable, __file__, mode, *map(str, places)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _prepare(model: Path, reward: Path) -> None:
    """Leave an adapter with a scalar head, as a reward model that is trained on the base does."""
    init_process_group(0, 1, "127.0.0.1", 0)
    spec = policy_spec(_config(model, None, share=False), None)
    rank = PolicyWorker(rank=0, world_size=1, spec=replace(spec, head=ScalarHead()), num_threads=1)
    rank.setup("127.0.0.1", 0)
    rank.save(str(reward))


def _measured(mode: str, model: Path, reward: Path, small: Path) -> tuple[float, float]:
    """MiB of distinct parameters, and by how much resident memory has grown while they were loaded and set up."""
    init_process_group(0, 1, "127.0.0.1", 0)
    _roles(_config(small, None, share=False))  # so that whatever is imported later has been
    config = _config(model, reward / "policy", share=mode == _SHARED)
    gc.collect()
    before = psutil.Process().memory_info().rss
    found = [load_model(base_spec(config, str(model)))] if mode == _BASE else _roles(config)
    for module, _ in found:
        for parameter in module.parameters():
            parameter.detach().sum()  # a file's weights are mapped, and in memory once they are read
    gc.collect()
    resident = psutil.Process().memory_info().rss - before
    held = {p.data_ptr(): p.numel() * p.element_size() for module, _ in found for p in module.parameters()}
    return sum(held.values()) / _MIB, resident / _MIB


def _roles(config: TrainConfig) -> list[tuple[Any, Any]]:
    """Modules of the roles, set up as a run's workers are, and what keeps them."""
    host = PolicyWorker(rank=0, world_size=1, spec=policy_spec(config, None), num_threads=1)
    host.setup("127.0.0.1", 0)
    specs = {"critic": critic_spec(config, None), "reference": reference_spec(config)}
    of_reward = ROLES["scalar_reward"]
    if of_reward.in_run(config) and of_reward.spec is not None:
        specs["scalar_reward"] = of_reward.spec(config, None, None)
    found = [(host._engine.module, host)]
    for name, spec in specs.items():
        role = ROLES[name]
        if config.placement.share_base:
            host.admit(name, role.actor_class(), spec)
            worker = host._tenants[name]
        else:
            rank = {"rank": 0, "world_size": 1} if role.trainable else {}
            worker = role.actor_class()(spec=spec, num_threads=1, **rank)
        if role.trainable:
            worker.setup("127.0.0.1", 0)
        found.append((worker._engine.module if role.trainable else worker._module, worker))
    return found


def _config(model: Path, reward: Path | None, *, share: bool) -> TrainConfig:
    asked = ("--reward.functions", "scalar", "--reward.scalar_path", str(reward)) if reward is not None else ()
    begun = (*_CRITIC, str(reward), "--critic.head", "reward_head") if reward is not None else ()
    config, _ = load_config(
        [
            *("--algo", "ppo", "--model.path", str(model), "--data.path", "none.json", "--model.dtype", "float32"),
            *("--model.lora_rank", "8", "--algorithm.kl_coef", "0.1", "--placement.share_base", str(share).lower()),
            *(*asked, *begun),
        ]
    )
    return config


if __name__ == "__main__":
    main()
