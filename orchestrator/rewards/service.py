"""The reward service as a Ray-managed process: it starts with the run and cannot outlive it."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.health import Health
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.waits import WaitTimeout, get
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.rewards.check import (
    answer_timeout_s,
    asks_service,
    compares_samples,
    service_arguments,
    service_token,
)
from orchestrator.rewards.client import RewardClient
from orchestrator.rewards.reward import Reward, RewardItem
from orchestrator.rewards.service_process import RewardServiceActor
from orchestrator.run.folder import RunFolder

_log = logging.getLogger(__name__)
_PING_S = 10.0


class RewardService:
    """The run's own reward service; it is started again whenever it is found gone."""

    def __init__(self, config: TrainConfig, folder: RunFolder, health: Health) -> None:
        """
        Raises:
            RefusedInput: it does not start.
        """
        self._config, self._folder, self._health = config, folder, health
        self._lock = threading.Lock()
        try:
            self._url = self._start(service_arguments(config, folder))
        except ConnectionError as error:
            raise RefusedInput(str(error)) from error

    def locate(self, unreachable: str | None = None) -> str:
        """The service's address; ``unreachable`` is one that has just failed, so it is looked after first.

        Raises:
            ConnectionError: it has ended and cannot be started again.
        """
        with self._lock:
            if unreachable == self._url and not self._runs():
                _log.warning("the reward service has ended and is started again")
                self.close()
                self._url = self._start_again()
            return self._url

    def close(self) -> None:
        """End the service, which first ends what its functions have started."""
        with contextlib.suppress(RuntimeError, WaitTimeout, ray.exceptions.RayError):
            get(self._actor.stop.remote(), name="reward service: stop", deadline_s=_PING_S)
        ray.kill(self._actor)

    def _start_again(self) -> str:
        try:
            return self._start(service_arguments(self._config, self._folder))
        except ConnectionError as error:
            # In the middle of a run the verdicts may be lost, the rewards may not.
            _log.warning("it is tried once more without its verdict cache: %s", error)
            self.close()
            return self._start(service_arguments(self._config, None))

    def _start(self, arguments: list[str]) -> str:
        # On this node, and taking no CPU of the plan.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class = ray.remote(RewardServiceActor).options(num_cpus=0, scheduling_strategy=here)
        self._health.expect("reward-0")
        log = str((self._folder.root / "reward_service.log").resolve())
        self._actor: Any = actor_class.remote(arguments, log, self._health.board)
        deadline_s = self._config.run.start_timeout_s
        try:
            return get(self._actor.url.remote(), name="reward service: start", deadline_s=deadline_s)
        except (RuntimeError, WaitTimeout, ray.exceptions.RayError) as error:
            raise ConnectionError(str(getattr(error, "cause", None) or error)) from error

    def _runs(self) -> bool:
        try:
            get(self._actor.ping.remote(), name="reward service: ping", deadline_s=_PING_S)
        except (RuntimeError, WaitTimeout, ray.exceptions.RayError):
            return False
        return True


class Unasked:
    """In place of a service: every reward begins at nothing, and workers of the run's own add to it."""

    def open_stream(self) -> "Unasked":
        """Start collecting items of one step."""
        self._rewards: dict[str, Reward] = {}
        return self

    def add(self, item: RewardItem) -> None:
        """One item."""
        self._rewards[item.id] = Reward(value=0.0, status="scored")

    def results(self) -> dict[str, Reward]:
        """By item id."""
        return self._rewards


@contextmanager
def reward_client(config: TrainConfig, folder: RunFolder, pool: WorkerPool) -> Iterator[RewardClient | Unasked]:
    """A client of ``reward.url``, or of a service started for this run; nobody where none has anything to say."""
    url = config.reward.url
    if not asks_service(config):
        yield Unasked()
        return
    service = RewardService(config, folder, pool.health) if url is None else None
    client = RewardClient(
        service.locate if service is not None else lambda unreachable=None: str(url),
        timeout_s=answer_timeout_s(config) if service is not None else config.reward.timeout_s,
        max_outage_s=config.reward.max_outage_s,
        token=service_token(config) if service is None else None,
        group_size=config.rollout.samples_per_prompt if compares_samples(config) else None,
    )
    try:
        yield client
    finally:
        client.close()
        if service is not None:
            service.close()
