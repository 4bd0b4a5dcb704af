"""The bound of a step: an estimate by hand of EasyR1's, what it must grow and shrink with, and how it is told."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.resources import ClusterResources, cluster_of_nodes, load_cluster_file
from orchestrator.cluster.roofline import learning, moving
from orchestrator.cluster.roofline.hardware import GPU_KINDS, Machine, Reach, kind_of_device
from orchestrator.cluster.roofline.lengths import Lengths, drawn_lengths, log_normal
from orchestrator.cluster.roofline.passes import backward_flops, forward_flops, total
from orchestrator.cluster.roofline.plan import machine_of_cluster, step_question
from orchestrator.cluster.roofline.question import StepQuestion
from orchestrator.cluster.roofline.sampling import Engines, engine_seconds
from orchestrator.cluster.roofline.step import step_bound
from orchestrator.cluster.roofline.work import Work, scattered, seconds
from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.train import main
from tests.unit.cluster.described_models import write_cluster, write_qwen2_5_vl_config

_EASYR1 = (
    *("--algo", "grpo", "--rollout.prompts_per_step", "512", "--rollout.samples_per_prompt", "5"),
    *("--policy.train_batch_size", "640", "--rollout.max_new_tokens", "2048", "--policy.zero_stage", "3"),
    *("--policy.num_ranks", "8", "--rollout.num_engines", "8", "--rollout.gpu_memory_utilization", "0.7"),
    *("--reference.num_ranks", "8", "--algorithm.kl_coef", "0.01"),
)
"""The run behind EasyR1's table: four updates a step, a KL penalty, and so a reference."""
Ask = Callable[..., StepQuestion]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    root = tmp_path_factory.mktemp("described")
    models = {size: write_qwen2_5_vl_config(root / size, size) for size in ("7B", "3B")}

    def asked(
        *flags: str, size: str = "7B", nodes: int = 1, gpu: str = "H100", lengths: Lengths | None = None
    ) -> StepQuestion:
        cluster = write_cluster(root / f"{gpu}_{nodes}.toml", gpu=gpu, nodes=nodes)
        own = ("--model.path", str(models[size]), "--placement.cluster", str(cluster), "--data.path", "unread.jsonl")
        config, _ = load_config([*_EASYR1, *own, *flags])
        resources, plan = plan_run(config)
        config = settled_dtype(config, plan)
        machine = machine_of_cluster(resources)
        assert machine is not None
        answers = log_normal(config.samples_per_step, mean=350, longest=2048)
        return step_question(
            config, plan, machine, lengths or drawn_lengths(config, prompt=400, image=300, answers=answers)
        )

    return asked


def test_the_published_sizes_are_counted(ask: Ask) -> None:
    assert ask().shape.num_params == 8_292_166_656
    assert ask(size="3B").shape.num_params == 3_754_622_976
    assert ask().shape.key_value_width * 2 == 57_344  # keys and values of a token, bytes


def test_the_estimate_by_hand_holds_for_the_step_it_describes(ask: Ask) -> None:
    """Every prompt read as often as it is answered, everything recomputed, two passes before the update: 50 to 70 s.

    By hand: parameters P = 7.6e9, 12 P FLOPs a token, 40 % of an H100's peak; 3.35 TB/s read 15.2 GB of weights for 256
    tokens. EasyR1 measured 120 to 145 s (its README's table, Qwen2.5-VL-7B on 8 H100).
    """
    asked = ask("--batching.mode", "pairs", "--model.gradient_checkpointing", "true")
    shape, machine = asked.shape, asked.machine
    tokens = 512 * 5 * (400 + 350)
    assert tokens == pytest.approx(2000 * 8 * 120, rel=0.01)
    peers = 12 * 7.6e9 * tokens / (8 * 989e12 * 0.40)
    assert peers == pytest.approx(55, abs=1)
    alone = [s for update in asked.updates for s in update]
    laid = [learning.best_layout(shape, (replace(s.asked, answers=(s.length,)),)) for s in alone]
    forward = sum(total(forward_flops(shape, one)) for one in laid)
    backward = sum(total(backward_flops(shape, one, asked.trained)) for one in laid)
    again = sum(learning.recomputed_flops(shape, one, asked.trained) for one in laid)
    counted = (3 * forward + backward + again) / (8 * 989e12 * 0.40)
    assert counted == pytest.approx(peers, rel=0.15)
    decoded = next(p for p in step_bound(asked).phases if p.name == "decode")
    assert 8 < decoded.bound_s < 12  # its tail
    assert 45 < counted + decoded.bound_s < 75
    engines = Engines(
        shape=shape, machine=machine, reach=Reach(memory=1.0, flops=1.0), width=2, number=8, tp=1, slots=256
    )
    assert 256 / engines.token_seconds(256, 400 + 175) == pytest.approx(36_000, rel=0.10)


def test_the_estimate_by_hand_is_no_lower_bound(ask: Ask) -> None:
    asked = ask()
    step = step_bound(asked)
    assert step.bound_s < 50  # of the same step with prompts shared and nothing recomputed
    # Its 15.2 GB are the language model alone; a sync carries the tower too, a decoding step reads no embeddings.
    assert moving.sync_bytes(asked) == 2 * asked.shape.num_params == pytest.approx(16.6e9, rel=0.01)
    assert 2 * asked.shape.read_a_token(1) == pytest.approx(14.1e9, rel=0.01)
    # 36,000 tokens a second are bound by memory only for who gets more of the peak than the 40 % it grants training.
    engines = Engines(shape=asked.shape, machine=asked.machine, reach=Reach(), width=2, number=8, tp=1, slots=256)
    work = engines.token_work(256, 575)
    spent = seconds(replace(work, flops=0.0), asked.machine, Reach(memory=1.0))
    assert 0.40 < work.flops / spent / 989e12 < 0.70


def test_our_plan_of_that_step_reaches_most_of_the_bound(ask: Ask) -> None:
    plain, checkpointed = (step_bound(ask("--model.gradient_checkpointing", told)) for told in ("false", "true"))
    for step in (plain, checkpointed):
        assert all(phase.bound_s <= phase.ours_s + 1e-9 for phase in step.phases)
        assert all(phase.peak_s <= phase.bound_s for phase in step.phases)
    assert plain.bound_s == checkpointed.bound_s
    assert plain.seconds("update")[1] < checkpointed.seconds("update")[1]
    again = next(p for p in checkpointed.phases if p.name == "update").excess["layers again"]
    assert again > 0


def test_what_is_beyond_the_best_plan_adds_up(ask: Ask) -> None:
    asked = ask("--model.gradient_checkpointing", "true")
    update = learning.update(asked)
    assert update.ours.flops == pytest.approx(update.best.flops + sum(update.excess.values()), rel=1e-9)
    assert all(amount >= -1e-6 * update.ours.flops for amount in update.excess.values())
    assert update.excess["scores again"] > 0


def test_a_single_update_without_reference_asks_nothing_first(ask: Ask) -> None:
    once = ask("--policy.train_batch_size", "2560", "--algorithm.kl_coef", "0")
    assert not once.asks_first and learning.old_logprobs(once) is None
    assert learning.reference(once) is None
    with_reference = learning.old_logprobs(ask("--policy.train_batch_size", "2560"))
    assert with_reference is not None
    assert with_reference.bound_s == 0 < with_reference.ours_s


@settings(max_examples=12, deadline=None)
@given(more=st.floats(1.1, 4.0), field=st.sampled_from(["tflops", "memory_gb_s", "link_gb_s", "host_gb_s"]))
def test_a_faster_machine_is_never_slower(ask: Ask, more: float, field: str) -> None:
    asked = ask("--policy.zero_stage", "2", "--rollout.tensor_parallel_size", "1")
    gpu = asked.machine.gpu.model_copy(update={field: getattr(asked.machine.gpu, field) * more})
    faster = replace(asked, machine=replace(asked.machine, gpu=gpu))
    before, after = step_bound(asked), step_bound(faster)
    for name in ("peak_s", "bound_s", "ours_s"):
        assert getattr(after, name) <= getattr(before, name) + 1e-9


@settings(max_examples=8, deadline=None)
@given(prompt=st.integers(50, 800), answer=st.integers(50, 600), more=st.integers(1, 400))
def test_more_tokens_take_longer(ask: Ask, prompt: int, answer: int, more: int) -> None:
    few = ask("--rollout.prompts_per_step", "64", "--policy.train_batch_size", "320")

    def of(p: int, a: int) -> tuple[float, float]:
        lengths = drawn_lengths(few.config, prompt=p, image=40, answers=[a] * few.config.samples_per_step)
        return step_bound(replace(few, lengths=lengths)).bound_s, step_bound(replace(few, lengths=lengths)).peak_s

    for longer in ((prompt + more, answer), (prompt, answer + more)):
        assert all(b > a for a, b in zip(of(prompt, answer), of(*longer), strict=True))


def test_more_gpus_take_less_time_and_a_larger_model_more(ask: Ask) -> None:
    many = ("--policy.num_ranks", "16", "--rollout.num_engines", "16", "--reference.num_ranks", "16")
    eight, sixteen = ask(), ask(*many, "--sync.backend", "ipc", nodes=2)
    assert step_bound(sixteen).bound_s < step_bound(eight).bound_s
    assert step_bound(ask(size="3B")).bound_s < step_bound(eight).bound_s
    assert step_bound(ask(gpu="H200")).bound_s < step_bound(eight).bound_s
    assert step_bound(ask(gpu="A100-80G")).bound_s > step_bound(eight).bound_s


def test_ahead_of_learning_sampling_costs_only_what_is_longer(ask: Ask) -> None:
    flags = ("--placement.layout", "separate", "--sync.backend", "nccl")
    asked = ask(*flags, "--policy.num_ranks", "8", "--rollout.num_engines", "8", nodes=3)
    stale = ask(*flags, "--policy.num_ranks", "8", "--rollout.num_engines", "8", "--rollout.staleness", "1", nodes=3)
    in_turn, ahead = step_bound(asked), step_bound(stale)
    sampling = in_turn.seconds("prefill", "decode")[0]
    assert ahead.bound_s == pytest.approx(max(sampling, in_turn.bound_s - sampling))


def test_what_earlier_weights_sampled_is_always_scored_first(ask: Ask) -> None:
    flags = ("--placement.layout", "separate", "--policy.train_batch_size", "2560", "--algorithm.kl_coef", "0")
    in_turn, ahead = (ask(*flags, "--rollout.staleness", told, nodes=2) for told in ("0", "1"))
    assert learning.old_logprobs(in_turn) is None
    scored = learning.old_logprobs(ahead)
    assert scored is not None
    assert scored.bound_s == 0 < scored.ours_s


def test_an_adapter_and_a_frozen_tower_move_and_compute_less(ask: Ask) -> None:
    whole, frozen = ask(), ask("--model.freeze", "vision")
    worn = ask("--model.freeze", "vision", "--model.lora_rank", "16", "--policy.zero_stage", "2")
    assert moving.sync_bytes(frozen) == 2 * (whole.shape.num_params - whole.shape.vision.weights)
    assert learning.update(frozen).best.flops < learning.update(whole).best.flops
    assert learning.update(worn).best.flops < 0.75 * learning.update(frozen).best.flops
    assert moving.optimizer(worn).ours.memory < 0.02 * moving.optimizer(frozen).ours.memory


@pytest.mark.parametrize("sequences", [[(7, 30)] * 4, [(7, 30), (5, 10), (5, 50)]])
def test_an_engine_runs_its_slots_in_order(sequences: list[tuple[int, int]], ask: Ask) -> None:
    asked = ask()
    engines = Engines(shape=asked.shape, machine=asked.machine, reach=Reach(), width=2, number=1, tp=1, slots=1)
    one_by_one = sum(n * engines.token_seconds(1, p + n / 2) for p, n in sequences)
    assert engine_seconds(engines, sequences, slots=1)[1] == pytest.approx(one_by_one)
    together = engine_seconds(engines, sequences, slots=len(sequences))[1]
    longest = max(n * engines.token_seconds(1, p + n / 2) for p, n in sequences)
    assert longest < together < one_by_one


def test_engines_of_several_gpus_reduce_between_them(ask: Ask) -> None:
    asked = ask()
    one, two = (
        Engines(shape=asked.shape, machine=asked.machine, reach=Reach(), width=2, number=4, tp=tp, slots=8)
        for tp in (1, 2)
    )
    assert one.token_work(8, 500).link == 0
    assert two.token_work(8, 500).link == 8 * 2 * 28 * 3584 * 2
    assert two.token_work(8, 500).memory == one.token_work(8, 500).memory / 2


def test_a_collective_sends_all_but_what_a_gpu_has() -> None:
    assert scattered(8e9, gpus=1, gpus_per_node=8) == Work()
    assert scattered(8e9, gpus=8, gpus_per_node=8) == Work(link=7e9, messages=3)
    assert scattered(8e9, gpus=16, gpus_per_node=8) == Work(link=7.5e9, network=0.5e9, messages=4)


@given(mean=st.floats(20, 400), far=st.floats(1.2, 6.0), num=st.integers(200, 3000))
def test_log_normal_lengths_have_the_mean_and_nothing_above_the_longest(mean: float, far: float, num: int) -> None:
    longest = math.ceil(mean * far)
    drawn = log_normal(num, mean=mean, longest=longest)
    assert len(drawn) == num
    assert 0.8 * longest <= max(drawn) <= longest
    assert sum(drawn) / num == pytest.approx(mean, rel=0.03)


def test_impossible_lengths_are_refused() -> None:
    with pytest.raises(RefusedInput, match="too far from the mean, 10, for a log-normal of 20: at most"):
        log_normal(20, mean=10, longest=10_000)
    with pytest.raises(RefusedInput, match="mean answer = 20 tokens is not above 0 and at most the longest, 10"):
        log_normal(20, mean=20, longest=10)


def _cluster(tmp_path: Path, text: str) -> ClusterResources:
    (tmp_path / "c.toml").write_text(text + '[[nodes]]\nname = "a"\ncpus = 8\ngpus = 4\n')
    return load_cluster_file(str(tmp_path / "c.toml"))


def test_a_cluster_names_its_gpus_or_gives_their_numbers(tmp_path: Path) -> None:
    named = machine_of_cluster(_cluster(tmp_path, 'gpu = "H200"\nnetwork_gb_s = 25\n'))
    assert named == Machine(gpu=GPU_KINDS["H200"], gpus_per_node=4, network_gb_s=25)
    told = machine_of_cluster(
        _cluster(tmp_path, "[gpu]\ntflops = 100\nmemory_gb_s = 1000\nlink_gb_s = 20\nhost_gb_s = 10\n")
    )
    assert told is not None
    assert told.gpu.tflops == 100
    with pytest.raises(RefusedInput, match="no such kind; known: A100-80G, H100, H200, B200, L40S"):
        _cluster(tmp_path, 'gpu = "H900"\n')
    assert machine_of_cluster(_cluster(tmp_path, "")) is None


def test_ray_says_which_gpus_it_has() -> None:
    node = {"Alive": True, "NodeManagerAddress": "10.0.0.1", "NodeID": "a"}
    offer = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:H100": 1.0}
    assert cluster_of_nodes([{**node, "Resources": offer}]).gpu == GPU_KINDS["H100"]
    odd = [{**node, "NodeID": "b", "Resources": {**offer, "accelerator_type:T4": 1.0}}, {**node, "Resources": offer}]
    assert cluster_of_nodes(odd).gpu is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA A100-SXM4-40GB", ""),
        ("NVIDIA H100 PCIe", ""),
        ("NVIDIA GH200 480GB", ""),
        ("NVIDIA GeForce RTX 4090", ""),
    ],
)
def test_a_driver_calls_a_kind_by_another_name(name: str, kind: str) -> None:
    assert kind_of_device(name) == GPU_KINDS.get(kind)


@pytest.mark.parametrize(
    ("gpu", "gpus", "told"),
    [
        (
            "H100",
            8,
            "bound of a step: 512 prompts of 2048 tokens (512 of images), 2560 answers of 2048, the longest of ",
        ),
        (None, 8, "no bound of a step is made: the cluster does not say gpu = one of A100-80G, H100, H200, B200, L40S"),
        ("H100", 0, "no bound of a step is made: the cluster has no GPUs"),
    ],
)
def test_a_dry_run_tells_the_bound(
    gpu: str | None, gpus: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_qwen2_5_vl_config(tmp_path / "model")
    cluster = write_cluster(tmp_path / "cluster.toml", gpu=gpu, gpus=gpus)
    own = ("--model.path", str(model), "--placement.cluster", str(cluster), "--data.path", "elsewhere.jsonl")
    lengths = ("--data.max_prompt_tokens", "2048", "--data.max_pixels", "401408")
    assert main([*_EASYR1, *own, *lengths, "--policy.tokens_per_microbatch", "16384", "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(told))
    if gpu is None or not gpus:
        return
    assert lines[at - 1].startswith("GPU in the")
    phases = [line.split("  ")[0] for line in lines[at + 2 : at + 13]]
    assert phases == [
        "prefill", "decode", "old log-probs", "reference", "update", "gradients", "optimizer", "sync",
        "sleep and wake", "driver", "step",
    ]  # fmt: skip
