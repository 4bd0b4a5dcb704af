"""Starts what a run of two ranks starts on this machine; prints, as JSON, the addresses that any of it listens at."""

import json
import sys

import orchestrator.train  # first, as on the command line: Ray decides where to listen when it is imported
from orchestrator.cluster.launch import ray_cluster
from orchestrator.cluster.placement import PlacementPlan
from workers.actor_base import WorkerBase
from workers.backends.deepspeed_engine import init_process_group

assert orchestrator.train


class Rank(WorkerBase):
    """One rank of a process group that trains nothing."""

    def join(self, rank: int, address: str, port: int) -> None:
        """Meet the other one."""
        init_process_group(rank, 2, address, port)


def addresses() -> set[str]:
    """Where this process and all that it started listen."""
    import psutil

    this = psutil.Process()
    return {
        connection.laddr.ip
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


def main() -> None:
    """Start, look, print."""
    import ray

    with ray_cluster(PlacementPlan(layout="separate", groups=(), workers=())):
        ranks = [ray.remote(Rank).remote(num_threads=1) for _ in range(2)]
        leader = ray.get(ranks[0].rendezvous.remote())
        ray.get([rank.join.remote(at, *leader) for at, rank in enumerate(ranks)])
        sys.stdout.write(json.dumps(sorted(addresses())) + "\n")


if __name__ == "__main__":
    main()
