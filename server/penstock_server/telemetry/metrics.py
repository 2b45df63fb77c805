"""Prometheus metrics: one registry and one endpoint for each process; all names are defined here."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from penstock_client.atomic_file import write_atomic
from penstock_client.reasons import Reason

BATCH_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram of the time from one training step to the next."""
HANDSHAKE_REASONS = ("unknown_key", "revoked_key", "protocol")
"""Reasons to turn a connection away; "protocol": no CURVE, or a wrong server key."""


class Metrics:
    """The metrics of a server process. Counters only grow; gauges are set before each line of metrics.jsonl.

    Args:
        process: "coordinator" or "rank-<n>", a label of every metric.
        study: name of the study, a label of every metric.

    Attributes:
        registry: the metrics, for Prometheus. The other attributes are the counters and gauges, described where they
            are made.
    """

    def __init__(self, process: str, study: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._server: WSGIServer | None = None
        self._labels = {"study": study, "process": process}
        self.samples_received = self._counter("samples_received", "Samples that arrived whole, duplicates included")
        self.duplicates_dropped = self._counter(
            "duplicates_dropped", "Samples that had arrived before and were dropped"
        )
        self.incomplete_dropped = self._counter(
            "incomplete_dropped", "Time steps of which pieces were missing at the end"
        )
        self.late_dropped = self._counter("late_dropped", "Messages that arrived after their attempt had ended")
        self.bytes_received = self._counter("received_bytes", "Payload bytes of pieces")
        self.messages_received = self._counter("messages_received", "Messages of clients, heartbeats included")
        self.shared_memory_connections = self._counter(
            "shared_memory_connections", "Data connections whose payloads come through shared memory"
        )
        self._refused = Counter(
            "penstock_refused", "Messages refused", ["study", "process", "reason"], registry=self.registry
        )
        self._handshakes_refused = Counter(
            "penstock_handshakes_refused",
            "Connections turned away before they could send anything",
            ["study", "process", "reason"],
            registry=self.registry,
        )
        # Made with 0, for Prometheus sees no increase in a counter that begins with 1.
        for reason in Reason:
            self.refused(reason, 0)
        for name in HANDSHAKE_REASONS:
            self.handshake_refused(name, 0)
        self.revoked_messages = self._counter(
            "revoked_messages", "Messages of open connections whose key has been revoked"
        )
        self.replies_dropped = self._counter("replies_dropped", "Answers to clients that are gone or do not read")
        self.keys_unusable = self._counter("keys_unusable", "Changes of keys.json that could not be used")
        self.batches = self._counter("batches", "Training steps")
        self.presentations = self._counter("presentations", "Samples drawn for training")
        self.batch_seconds = Histogram(
            "penstock_batch_seconds",
            "Time from one training step to the next, waiting for samples included",
            ["study", "process"],
            registry=self.registry,
            buckets=BATCH_SECONDS,
        ).labels(**self._labels)
        self.validation_seconds = self._counter("validation_seconds", "Time spent in validation")
        self.checkpoint_seconds = self._counter("checkpoint_seconds", "Time spent writing checkpoints")
        self.checkpoints = self._counter("checkpoints", "Checkpoints written")
        self.checkpoints_failed = self._counter("checkpoints_failed", "Checkpoints that the disk did not take")
        self.checkpoint_time = self._gauge(
            "last_checkpoint_timestamp_seconds", "When the last checkpoint was written, Unix time; 0 before the first"
        )
        self.ingest_blocked_seconds = self._counter(
            "checkpoint_ingest_blocked_seconds", "Time that checkpoints have kept ingest from the buffer, at most"
        )
        self.buffer_population = self._gauge("buffer_population", "Samples in the buffer")
        self.buffer_unseen = self._gauge("buffer_unseen", "Samples in the buffer that no batch has held yet")
        self.buffer_capacity = self._gauge("buffer_capacity", "Samples the buffer may hold")
        self.stall_seconds = self._gauge("stall_seconds", "Time training has waited for data")
        self.put_blocked_seconds = self._gauge("put_blocked_seconds", "Time ingest has waited for room in the buffer")
        self.samples_per_second = self._gauge("samples_per_second", "Training throughput since the last log line")
        self.loss = self._gauge("loss", "Training loss of the last batch")
        self.validation_mse = self._gauge("validation_mse", "Held-out mean squared error")
        self.validation_rmse_to_std = self._gauge(
            "validation_rmse_to_std", "Held-out root mean square error / standard deviation, mean over fields"
        )
        self.validation_relative_l2 = self._gauge(
            "validation_relative_l2", "Held-out relative L2 error, mean over samples"
        )
        self._simulations = Gauge(
            "penstock_simulations", "Simulations by state", ["study", "process", "state"], registry=self.registry
        )
        self.client_blocked_seconds = self._gauge("client_blocked_seconds", "Time clients have waited for credit")
        self.incarnation = self._gauge("incarnation", "Number of the server's run in the run directory, from 1")
        self.remaining_seconds = self._gauge(
            "production_remaining_seconds", "Estimated time to the end of production; NaN before a simulation has ended"
        )
        self.device_memory_used = self._gauge("device_memory_used_bytes", "Memory of the GPU in use, by all processes")
        self.device_memory = self._gauge("device_memory_bytes", "Memory of the GPU; 0 where training is on CPUs")

    def refused(self, reason: Reason, number: int = 1) -> None:
        """Count refused messages.

        Args:
            reason: reason of the refusal.
            number: number of messages.
        """
        self._refused.labels(**self._labels, reason=reason.name.lower()).inc(number)

    def handshake_refused(self, reason: str, number: int = 1) -> None:
        """Count refused connections.

        Args:
            reason: one of HANDSHAKE_REASONS.
            number: number of connections.
        """
        self._handshakes_refused.labels(**self._labels, reason=reason).inc(number)

    def refusals(self) -> dict[str, int]:
        """Return the number of refused messages by reason."""
        return self._by_reason(self._refused)

    def handshakes_refused(self) -> dict[str, int]:
        """Return the number of refused connections by reason."""
        return self._by_reason(self._handshakes_refused)

    def _by_reason(self, counter: Counter) -> dict[str, int]:
        return {
            s.labels["reason"]: int(s.value)
            for family in counter.collect()
            for s in family.samples
            if s.name.endswith("_total") and s.value
        }

    def total(self, name: str) -> int:
        """Return the value of a counter.

        Args:
            name: name of the counter, such as "samples_received".
        """
        return int(self.registry.get_sample_value(f"penstock_{name}_total", self._labels) or 0)

    def simulations(self, by_state: Mapping[str, int]) -> None:
        """Set the number of simulations in each state."""
        for state, number in by_state.items():
            self._simulations.labels(**self._labels, state=state).set(number)

    def serve(self, host: str) -> str:
        """Start the endpoint on a free port.

        Args:
            host: address to listen on.

        Returns:
            The endpoint as host:port.
        """
        self._server, _ = start_http_server(0, addr=host, registry=self.registry)
        return f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Close the endpoint, if there is one; it is closed within a second."""
        if self._server is not None:
            # On a thread, since `shutdown` waits for the server's poll, twice a second.
            threading.Thread(
                target=_shut_down, args=(self._server,), name="penstock-metrics-close", daemon=True
            ).start()
            self._server = None

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"penstock_{name}", text, list(self._labels), registry=self.registry).labels(**self._labels)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"penstock_{name}", text, list(self._labels), registry=self.registry).labels(**self._labels)


def _shut_down(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()


def write_targets(path: Path, study: str, endpoints: Sequence[str]) -> None:
    """Write targets.json, which Prometheus reads by file discovery (`file_sd_configs`).

    Args:
        path: the file.
        study: name of the study.
        endpoints: endpoints of its processes, host:port.
    """
    groups = [{"targets": list(endpoints), "labels": {"job": "penstock", "study": study}}]
    write_atomic(path, json.dumps(groups, indent=1))
