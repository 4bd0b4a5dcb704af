"""How a run's reward service is started, and what is asked of it, or of the user's own, before anything is."""

import subprocess
import sys
import time
from pathlib import Path

from orchestrator.config.schema import TrainConfig
from orchestrator.data.shards import beside
from orchestrator.errors import RefusedInput
from orchestrator.rewards.client import BATCH_ITEMS, MOST_ASKED_AT_ONCE, RewardClient
from orchestrator.rewards.reward import one_line
from orchestrator.run.folder import RunFolder
from workers.given_files import SMALL, UnusableFile, read_text

_MAY_TAKE_S = 30.0
_BETWEEN_PROBES_S = 1.0
_PROGRAM = "remote_rm.serve: "
_OPTIONS = {"--judge-url": "reward.judge_url", "--cache": "reward.cache_path", "--functions": "reward.functions"}


def check_rewards(config: TrainConfig, folder: RunFolder) -> None:
    """Refuse a reward service that cannot be reached, a judge that does not answer, or a cache that cannot serve.

    Raises:
        RefusedInput: with its own words, or because a link lies where the cache should.
    """
    if not config.online or not asks_service(config):
        return
    folder.refuse_planted()  # a cache that is there is tried, and so written to, before the run has its folder
    if config.reward.url is not None:
        _ask_service(config, config.reward.url)
    elif config.reward.judge == "openai" or config.reward.served or _keeps_cache(config, folder):
        probe_own_service(config, folder)


def _ask_service(config: TrainConfig, url: str) -> None:
    reward = config.reward
    token = service_token(config)
    client = RewardClient(lambda _=None: url, timeout_s=reward.timeout_s, max_outage_s=reward.max_outage_s, token=token)
    try:
        # One that starts together with the run may need a moment.
        deadline = time.monotonic() + min(_MAY_TAKE_S, reward.max_outage_s)
        while (health := client.health()).state != "well":
            if health.state == "lasting" or time.monotonic() > deadline:
                raise RefusedInput(f"reward.url {url!r} does not serve: {health.words}")
            time.sleep(_BETWEEN_PROBES_S)
        if health.scoring in {"strict", "compat"} - {reward.scoring}:
            raise RefusedInput(f"reward.scoring = {reward.scoring!r}, but reward.url scores by {health.scoring!r}")
    finally:
        client.close()


def probe_own_service(config: TrainConfig, folder: RunFolder) -> None:
    """Have the service's own command try its options, its cache and its judge."""
    arguments = service_arguments(config, folder if _keeps_cache(config, folder) else None)
    command = [sys.executable, "-m", "remote_rm.serve", "--port", "0", *arguments, "--probe"]
    most_s = config.run.start_timeout_s
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=most_s)
    except subprocess.TimeoutExpired as error:
        told = f"no answer within run.start_timeout_s = {most_s:g}"
        raise RefusedInput(f"reward.judge = {config.reward.judge!r}: {told}") from error
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or [f"it ended with exit code {ended.returncode}"]
        raise RefusedInput(one_line(_in_our_words(lines[-1].removeprefix(_PROGRAM))))


def _keeps_cache(config: TrainConfig, folder: RunFolder) -> bool:
    """Whether there is a cache to try: one that is not there yet would be made, and with it a run folder."""
    return config.reward.cache_path is not None or _verdict_cache(config, folder).exists()


def _in_our_words(words: str) -> str:
    """The service speaks of its options, a user of a run of theirs."""
    for option, name in _OPTIONS.items():
        if words.startswith(option):
            return name + words.removeprefix(option)
    return f"reward.judge does not serve: {words}"


def service_token(config: TrainConfig) -> str | None:
    """The bearer token that the user's service asks for.

    Raises:
        RefusedInput: its file holds none.
    """
    return secret_in(config.reward.token_file, option="reward.token_file", what="token")


def secret_in(file: str | None, *, option: str, what: str) -> str | None:
    """What stands in a file that holds nothing but a secret; None without a file.

    Raises:
        RefusedInput: there is none in it.
    """
    if file is None:
        return None
    try:
        secret = read_text(file, most=SMALL).strip()
    except UnusableFile as error:
        raise RefusedInput(f"{option} {file!r} cannot be read as text: it {error}") from error
    if not secret or not (secret.isascii() and secret.isprintable()):
        raise RefusedInput(f"{option} {file!r} should hold one line of ASCII characters, the {what}")
    return secret


def _verdict_cache(config: TrainConfig, folder: RunFolder) -> Path:
    """Where verdicts are kept."""
    return Path(config.reward.cache_path or folder.root / "verdicts.sqlite")


def asks_service(config: TrainConfig) -> bool:
    """Whether a service has anything to say of a sample: not where only workers of the run's own do, or nobody need."""
    reward = config.reward
    return config.needs.rewards and (reward.url is not None or bool(reward.served) or not reward.functions)


def answer_timeout_s(config: TrainConfig) -> float:
    """Longest wait for one answer of the run's own service: all that is asked at once may call every function."""
    reward = config.reward
    calls = MOST_ASKED_AT_ONCE * max(1, config.rollout.samples_per_prompt // BATCH_ITEMS + 1) * len(reward.served)
    return reward.timeout_s + calls * reward.function_timeout_s / reward.function_workers


def compares_samples(config: TrainConfig) -> bool:
    """Whether whoever is asked for rewards may want all samples of a prompt at once."""
    return bool(config.reward.functions) or config.reward.url is not None


def media_roots(config: TrainConfig) -> list[str]:
    """Folders below which the run's images lie."""
    roots: list[Path] = []
    for part in config.data.parts:
        paths = [Path(path) for path in (part.path, part.eval_path) if path is not None]
        roots += [Path(part.media_root)] if part.media_root is not None else [beside(path) for path in paths]
    return list(dict.fromkeys(str(root.resolve()) for root in roots))


def service_arguments(config: TrainConfig, folder: RunFolder | None) -> list[str]:
    """Command-line arguments of this run's reward service.

    Args:
        folder: None keeps no verdicts.
    """
    reward = config.reward
    arguments = ["--judge", reward.judge, "--scoring", reward.scoring]
    if reward.served:
        bounds = (reward.function_workers, reward.function_timeout_s, reward.function_memory_gib)
        names = ("--function-workers", "--function-timeout-s", "--function-memory-gib")
        arguments += ["--functions", *reward.served]
        arguments += [text for name, bound in zip(names, bounds, strict=True) for text in (name, f"{bound}")]
        arguments += ["--media-root", *media_roots(config)]
    if folder is not None:
        arguments += ["--cache", str(_verdict_cache(config, folder))]
    if reward.judge == "openai":
        arguments += ["--judge-url", str(reward.judge_url), "--judge-model", str(reward.judge_model)]
        if reward.judge_key_file is not None:
            arguments += ["--judge-key-file", reward.judge_key_file]
    return arguments
