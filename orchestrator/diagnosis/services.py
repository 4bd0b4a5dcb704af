"""Who says how good a response is, asked once: the user's reward service, a judge behind an endpoint."""

from collections.abc import Iterator, Sequence

from orchestrator.config.schema import TrainConfig
from orchestrator.diagnosis.finding import Finding, Patient
from orchestrator.diagnosis.rows import run_data
from orchestrator.rewards.asking import Question
from orchestrator.rewards.check import asks_service, check_rewards, service_token
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.judge_service import check_sample_judges, endpoint
from orchestrator.rewards.reward import Reward, RewardItem
from orchestrator.run.folder import RunFolder
from workers.types import Prompt

_PATIENCE_S = 30.0
"""In which a service that does not answer is given up; a run waits longer."""
_START_S = 90.0
_ADDRESS = "look at its address, its log and its key"
_EASY = "Is the sky blue on a clear day? Answer in one word, yes or no."


def rewards(patient: Patient) -> Iterator[Finding]:
    """One question to the reward service, of the user's or the run's own, and the kind of its answer."""
    config = _impatient(patient.known)
    if not config.online or not asks_service(config):
        yield Finding("ok", "no service is asked")
        return
    check_rewards(config, RunFolder(patient.folder))
    if config.reward.url is None:
        judge = config.reward.judge == "openai"
        what = f"{config.reward.judge_model} gave a verdict that can be read" if judge else "rules, which ask nobody"
        yield Finding("ok", f"the run's own service: {what}")
        return
    yield judge_reward(_scored(config, config.reward.url), url=config.reward.url)


def judge_reward(reward: Reward, *, url: str) -> Finding:
    """What the answer to one question says of the service."""
    if reward.status in ("scored", "cached"):
        parts = ", ".join(f"{name} {value:g}" for name, value in reward.parts.items() if value is not None)
        return Finding(
            "ok", f"reward.url {url} answered: {reward.status}, {reward.value:g}{f' ({parts})' if parts else ''}"
        )
    if reward.status == "unknown":
        found = f"reward.url {url} answered an easy question: unknown, its judge could not tell"
        return Finding("warn", found, "a run stops above reward.max_unknown")
    return Finding("FAIL", f"reward.url {url} answered: failed, {reward.detail}", _ADDRESS)


def judges(patient: Patient) -> Iterator[Finding]:
    """One question to the endpoint of the judges that the run asks itself, in the form that it will be asked in."""
    config, reward = _impatient(patient.known), patient.known.reward
    if reward.judge_url is None:
        yield Finding("ok", "no endpoint is asked")
        return
    if reward.rubric_weight is not None or reward.pairwise_weight is not None:
        check_sample_judges(config, _prompts(patient))
        yield Finding("ok", f"{reward.judge_model} gave a verdict that can be read")
    elif reward.judge == "openai":
        yield Finding("ok", "asked by the reward service")
    else:
        (answer,) = endpoint(config, _PATIENCE_S).write([Question("doctor", (), _EASY)])
        if answer.text is None:
            yield Finding("FAIL", f"reward.judge_url does not serve: {answer.fault}", _ADDRESS)
        elif not answer.text.strip():
            yield Finding("FAIL", f"{reward.judge_model} answered with no word", "raise reward.judge_max_new_tokens")
        else:
            yield Finding("ok", f"{reward.judge_model} answered a question with a text")


def _prompts(patient: Patient) -> Sequence[Prompt]:
    if not patient.known.embedded_task:
        return run_data(patient).train.prompts
    content = [{"type": "text", "text": _EASY}]
    return [Prompt(uid="doctor", messages=({"role": "user", "content": content},), media=(), label="yes")]


def _scored(config: TrainConfig, url: str) -> Reward:
    reward = config.reward
    client = RewardClient(
        lambda _=None: url,
        timeout_s=reward.timeout_s,
        max_outage_s=reward.max_outage_s,
        token=service_token(config),
    )
    item = RewardItem(
        uid="doctor",
        sample_index=0,
        prompt=_EASY,
        response="<think>It scatters blue light. So response 1 is better.</think><answer>1</answer>",
        label="1",
        media=(),
        group="doctor",
        length=16,
        finish_reason="stop",
    )
    try:
        return client.post([item]).result()[item.id]
    finally:
        client.close()


def _impatient(config: TrainConfig) -> TrainConfig:
    """The run as it is asked about now: nobody waits for a person as long as for a run."""
    reward, run = config.reward, config.run
    bounds = {"timeout_s": min(_PATIENCE_S, reward.timeout_s), "max_outage_s": min(_PATIENCE_S, reward.max_outage_s)}
    return config.model_copy(
        update={
            "reward": reward.model_copy(update=bounds),
            "run": run.model_copy(update={"start_timeout_s": min(_START_S, run.start_timeout_s)}),
        }
    )
