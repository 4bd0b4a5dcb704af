"""What a service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_JUDGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One instance a service: two services in one process do not share counters."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.items = Counter(
            "raylign_reward_items", "Items answered, by route and status.", ["route", "status"], registry=registry
        )
        self.verdicts = Counter(
            "raylign_judge_verdicts",
            "Answers by verdict (or failed) and source.",
            ["verdict", "source"],
            registry=registry,
        )
        self.judge_seconds = Histogram(
            "raylign_judge_seconds",
            "Time of one judgement, retries included.",
            buckets=_JUDGE_BUCKETS_S,
            registry=registry,
        )
        self.cache_faults = Counter(
            "raylign_verdict_cache_faults", "Times the verdict cache failed.", registry=registry
        )
        self.cache_rejected = Counter(
            "raylign_verdict_cache_rejected",
            "Kept verdicts that were not as they had been written; asked for again.",
            registry=registry,
        )
        self.left = Counter("raylign_clients_left", "Requests whose client left before its answer.", registry=registry)
        self.refused_connections = Counter(
            "raylign_connections_refused", "Connections beyond the most at once.", registry=registry
        )
        self.late_connections = Counter(
            "raylign_connections_late", "Connections closed: head, body or reading too slow.", registry=registry
        )
        self.judgements_running = Gauge("raylign_judgements_running", "Judgements under way.", registry=registry)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
