"""What a server counts, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Hashable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gemvlm.serving.queue import WorkQueue

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of its own: two servers in a process don't mix."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.registry = CollectorRegistry()
        self._paths = frozenset(paths)
        name = "gemvlm_"
        self.requests = Counter(
            name + "requests", "Answers by path and HTTP status", ["path", "status"], registry=self.registry
        )
        self.latency = Histogram(
            name + "request_seconds",
            "First byte to last",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            name + "batch_jobs", "Requests that shared a batch", ["kind"], buckets=BATCHES, registry=self.registry
        )
        self.work = Histogram(
            name + "batch_seconds", "How long a batch took", ["kind"], buckets=SECONDS, registry=self.registry
        )
        self.prompt_tokens = Counter(name + "prompt_tokens", "Tokens read", registry=self.registry)
        self.new_tokens = Counter(name + "generation_tokens", "Tokens said", registry=self.registry)
        self.waiting = Gauge(name + "requests_waiting", "Requests in the queue", registry=self.registry)
        self.running = Gauge(name + "requests_running", "Requests being worked on", registry=self.registry)

    def watch(self, queue: WorkQueue) -> None:
        self.waiting.set_function(lambda: len(queue))
        self.running.set_function(lambda: queue.working)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Paths that nobody serves are counted as one: strangers must not make new series."""
        path = path if path in self._paths else "other"
        self.requests.labels(path, str(status)).inc()
        self.latency.labels(path).observe(seconds)

    def worked(self, key: Hashable, jobs: int, seconds: float) -> None:
        kind = str(getattr(key, "kind", key))
        self.batches.labels(kind).observe(jobs)
        self.work.labels(kind).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
