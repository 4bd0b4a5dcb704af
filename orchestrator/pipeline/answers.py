"""What a policy says to held-out prompts before and after learning, and what the reward model thinks of it."""

import json
from dataclasses import dataclass

from orchestrator.cluster.feed import build_requests, generate
from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.specs import engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.image_check import ImageCheck
from orchestrator.data.records import prompt_of
from orchestrator.data.side_tables import table_fingerprint
from orchestrator.data.stores import OfflineData, held_out_rows
from orchestrator.evaluation.held_out import prompt_text
from orchestrator.preflight import check_positions
from orchestrator.rewards.critique_judge import CritiqueReward, Question
from orchestrator.rewards.offline_judge import judge_fingerprint, offline_judge
from orchestrator.run.cursor import sample_seed
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity, option_identity, settled
from orchestrator.run.model_folder import plain_folder
from workers.types import Prompt

ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRewards:
    """Means over the held-out prompts that were answered and judged both times."""

    before: float
    after: float
    preferred: float
    """Share of the prompts whose answer has a greater reward after learning; half of a tie."""
    count: int


def check_answers(config: TrainConfig, data: OfflineData) -> None:
    """Refuse held-out prompts that leave no room for an answer, before anything is trained.

    Raises:
        RefusedInput: with the sum and the bound.
    """
    prompts = _asked(config, data)
    if prompts:
        encoder = prompt_encoder(config)
        check_positions(config, encoder, max(len(encoder.encode(p).prompt_ids) for p in prompts), probed=False)


def evaluate_answers(config: TrainConfig, folder: RunFolder, data: OfflineData, model: str) -> None:
    """Sample one answer a held-out prompt from the starting and from the trained policy, and judge them.

    Both are sampled with the same seeds, as ``rollout`` says; every answer, critique and reward is kept in
    ``evaluations/answers.jsonl``.

    Args:
        model: Folder of the critique reward model.
    """
    store, rows = data.held_out_store, []
    prompts = _asked(config, data)
    if prompts:
        policies = (config.model.folder, str(plain_folder(folder.root)))
        texts = list(zip(*(sampled(config, policy, prompts) for policy in policies), strict=True))
        # The two answers to a prompt side by side, so that it is computed once.
        questions = [Question(prompt=p, response=text) for p, pair in zip(prompts, texts, strict=True) for text in pair]
        with offline_judge(config, folder, store, model, max_images=max(len(p.media) for p in prompts)) as judge:
            rewards = judge.judge(questions)
        rows = [
            {"uid": p.uid, **_asked_of(p), "before": _told(before, x), "after": _told(after, y)}
            for p, (before, after), x, y in zip(prompts, texts, rewards[::2], rewards[1::2], strict=True)
        ]
    folder.evaluations.mkdir(exist_ok=True)
    write_atomic(folder.evaluations / ANSWERS_FILE, "".join(json.dumps(row) + "\n" for row in rows))


def _asked(config: TrainConfig, data: OfflineData) -> list[Prompt]:
    """The held-out prompts whose images the models can take."""
    check, root = ImageCheck(config), data.held_out_store.media_root
    usable = (row for row in held_out_rows(data, side_tables={}) if check(row.media) is None)
    return [prompt_of(row, media_root=root) for row in usable]


def answers_made_from(config: TrainConfig, folder: RunFolder, data: OfflineData, model: str) -> Identity:
    """All that the answers and their rewards depend on.

    Args:
        model: Folder of the critique reward model.
    """
    store = data.held_out_store
    policies = {"start": config.model.folder, "policy": str(plain_folder(folder.root))}
    parts = [(name, table_fingerprint(config, store.manifest.fingerprint, path)) for name, path in policies.items()]
    parts.append(("rewards", judge_fingerprint(config, store, model)))
    told = {f"{name}.{part}": value for name, fingerprint in parts for part, value in fingerprint.parts().items()}
    options = settled(option_identity(config))
    return told | {name: value for name, value in options.items() if name.startswith(("rollout.", "run.seed"))}


def told_answers(folder: RunFolder) -> str:
    """What ``evaluate_answers`` found, in one sentence."""
    rows = [json.loads(line) for line in (folder.evaluations / ANSWERS_FILE).read_text().splitlines()]
    if not rows:
        return "No held-out prompts, so the policy is not asked."
    result = compare([(row["before"]["reward"], row["after"]["reward"]) for row in rows])
    if result is None:
        return "No held-out answer could be judged."
    return (
        f"Held-out answers, {result.count} prompts: mean reward {result.before:.3f} before, {result.after:.3f} after; "
        f"preferred after learning {result.preferred:.3f}"
    )


def sampled(config: TrainConfig, policy: str, prompts: list[Prompt]) -> list[str]:
    """One answer a prompt from the policy in the folder ``policy``."""
    encoder = prompt_encoder(config, policy)
    encoded = [encoder.encode(p) for p in prompts]
    rollout = config.rollout
    requests = build_requests(
        encoded,
        samples_per_prompt=1,
        seed_of=lambda uid, index: sample_seed(config.run.seed, uid, index, 0),
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        top_p=rollout.top_p,
    )
    spec = engine_spec(
        config,
        policy,
        encoder,
        max_model_len=max(len(e.prompt_ids) for e in encoded) + rollout.max_new_tokens,
        max_images=max(len(p.media) for p in prompts),
    )
    with worker_pool(config, single_role_plan(config, "rollout"), spec) as pool:
        engines = dict(enumerate(pool.role("rollout").actors))
        completions = generate(engines, requests, deadline_s=rollout.timeout_s)
    return [encoder.decode(c.completion_ids) for c in completions]


def compare(rewards: list[tuple[float | None, float | None]]) -> AnswerRewards | None:
    """Rewards before and after, prompt by prompt; None where no prompt has both."""
    both = [(x, y) for x, y in rewards if x is not None and y is not None]
    if not both:
        return None
    return AnswerRewards(
        before=sum(x for x, _ in both) / len(both),
        after=sum(y for _, y in both) / len(both),
        preferred=sum((y > x) + 0.5 * (y == x) for x, y in both) / len(both),
        count=len(both),
    )


def _asked_of(prompt: Prompt) -> dict[str, object]:
    """What a report shows beside the answers."""
    return {"prompt_text": prompt_text(prompt), "media": [(ref.path, ref.sha256) for ref in prompt.media]}


def _told(text: str, answer: CritiqueReward) -> dict[str, object]:
    return {"text": text, "reward": answer.reward, "critique": answer.critique, "status": answer.status}
