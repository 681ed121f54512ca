"""What the router says of itself: the status, its queues and sessions, and the metrics page.

All from the core's own numbers, without touching the store, so that an answer takes no longer
under full load than at rest.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
import zmq
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proto.frames import PROTOCOL_VERSION
from proto.logs import lost_lines
from router.core.queue import Queue
from router.core.session import Session
from router.shell.accesses import OperatorAccesses
from router.shell.clock import now
from router.shell.disk import Disk
from router.shell.engine import Engine
from router.shell.keyring import Keyring
from router.shell.partnermetrics import Labels, partner_metrics
from router.shell.partners import Partners


def versions() -> dict[str, Any]:
    """Return what is running."""
    return {
        "version": version("smpbus"),
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }


@dataclass(frozen=True, slots=True)
class Report:
    """Reads one router: its parts, and the facts of its start."""

    engine: Engine
    disk: Disk
    partners: Partners
    accesses: OperatorAccesses
    keyring: Keyring | None
    store_folder: Path
    descriptors_max: int
    started_at: int  # ms, UTC
    labels: Labels = field(default_factory=Labels)

    def queue_rows(self) -> list[dict[str, Any]]:
        """Return a row per destination."""
        return [_queue_row(queue) for _, queue in sorted(self.engine.core.queues.items())]

    def session_rows(self) -> list[dict[str, Any]]:
        """Return a row per session."""
        mono_ms = now().mono_ms
        return [_session_row(session, mono_ms) for session in self.engine.core.sessions.values()]

    def status(self) -> dict[str, Any]:
        """Return the whole state at one glance."""
        engine, core, writer, at = self.engine, self.engine.core, self.engine.writer, now()
        return {
            **versions(),
            "bus": core.bus,
            "epoch": core.epoch,
            "pid": os.getpid(),
            "state": engine.state,
            "started_at": self.started_at,
            "uptime_s": round((at.wall_ms - self.started_at) / 1000, 1),
            "listen": engine.bus.addresses,
            "counters": dict(core.counters),
            "open": sum(queue.open for queue in core.queues.values()),
            "sessions": len(core.sessions),
            "clock_doubted": core.is_clock_doubted(at),
            "keys": {} if self.keyring is None else self.keyring.rows(),
            "accesses": self.accesses.figures(),
            "queues": self.queue_rows(),
            "partners": self.partners.rows(whole=False),
            "store": {
                "path": str(self.store_folder),
                "bytes": self.disk.store_bytes,
                "free_bytes": self.disk.room.free_bytes,
                "empty_bytes": self.disk.room.inside_bytes,
                "commits": writer.commits,
                "last_commit_ms": round(writer.commit_s * 1000, 3),
                "writable": not core.store_full,
            },
            "bounds": self.bounds(),
            "loop": {"turns": engine.turn_count, "last_turn_ms": round(engine.turn_s * 1000, 3)},
            "rss_bytes": _rss_bytes(),
        }

    def bounds(self) -> dict[str, Any]:
        """Return what is bounded: how much of it is taken, and how much there is."""
        engine, core = self.engine, self.engine.core
        if engine.state == "starting":
            return {}
        bus, gate, peers = core.settings.bus, engine.bus.gate, engine.bus.peers
        return {
            "connections": len(gate),
            "connections_max": gate.connections_max,
            "connections_accepted": gate.accepted,
            "connections_shut": gate.shut_out,
            "keys_refused": max(0, gate.refused),
            "other_router_key": gate.other_key,
            "strangers": gate.strangers,
            "descriptors_max": self.descriptors_max,
            "sessions_max": bus.sessions_max,
            "unread_bytes": peers.unread,
            "unread_bytes_max": peers.unread_max,
            "unread_bytes_total": bus.unread_bytes_total,
            "gather_bytes": core.out.batch.size,
            "gather_bytes_max": bus.gather_bytes_max,
            "frames_unread_max": bus.frames_unread_max,
            "share_bytes_max": peers.share_max,
            "waiting_bytes": engine.turns.bytes,
            "waiting_bytes_max": bus.waiting_bytes_max,
            "errors_max": bus.errors_max,
            "peers_dismissed": peers.dismissed,
            "routing_ids_guessed": peers.guessed,
            "log_lines_lost": lost_lines(),
        }

    def metrics_page(self) -> bytes:
        """Return the Prometheus text page."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_RouterCollector(self))
        return generate_latest(registry)


def _queue_row(queue: Queue) -> dict[str, Any]:
    return {
        "destination": queue.name,
        "pending": queue.open - queue.in_flight - queue.retrying,
        "in_flight": queue.in_flight,
        "retrying": queue.retrying,
        "on_disk_only": queue.spill.total,
        "not_due": queue.sleepers.total,
        "accepted": queue.totals["accepted"],
        "settled": queue.totals["settled"],
        "dead": queue.totals["dead"],
        "expired": queue.totals["expired"],
        "dropped": queue.totals["dropped"],
        "hold": queue.hold,
        "consumers": sum(1 for holding in queue.holdings if holding.window),
        "oldest_ms": queue.oldest(),
    }


def _session_row(session: Session, mono_ms: int) -> dict[str, Any]:
    return {
        "name": session.name,
        "software": session.software,
        "since": session.since,
        "last_heard_ms": mono_ms - session.heard_ms,
        "credit": {name: holding.window for name, holding in session.holdings.items()},
        "serves": sorted(name for name, one in session.holdings.items() if one.serves),
        "in_flight": session.held(),
        "published": session.published,
        "acked": session.acked,
        "reports": session.reports,
        "reported_at": session.reported_at,
    }


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class _RouterCollector(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report, engine = self._report, self._report.engine
        info = GaugeMetricFamily(
            "smpbus_build_info", "What is running.", labels=["version", "python", "libzmq"]
        )
        running = versions()
        info.add_metric([running["version"], running["python"], running["libzmq"]], 1)
        yield info
        for name, value in engine.core.counters.items():
            yield CounterMetricFamily(f"smpbus_{name}", f"Since the start: {name}.", value=value)
        yield from _queue_metrics(report)
        yield from partner_metrics(report.partners.connectors(), report.labels)
        yield GaugeMetricFamily(
            "smpbus_sessions", "Connected peers.", value=len(engine.core.sessions)
        )
        commits = CounterMetricFamily("smpbus_store_commits", "Synced transactions.",
                                      value=engine.writer.commits)  # fmt: skip
        yield commits
        yield CounterMetricFamily("smpbus_store_commit_seconds", "Time in synced transactions.",
                                  value=engine.writer.commit_s_total)  # fmt: skip
        yield GaugeMetricFamily("smpbus_store_bytes", "Size of the journal on disk.",
                                value=report.disk.store_bytes)  # fmt: skip
        yield GaugeMetricFamily("smpbus_loop_turn_duration_seconds", "The latest turn's.",
                                value=engine.turn_s)  # fmt: skip
        yield GaugeMetricFamily("smpbus_resident_memory_bytes", "Resident memory.",
                                value=_rss_bytes())  # fmt: skip


def _queue_metrics(report: Report) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "smpbus_queue_messages", "Open deliveries.", labels=["destination", "state"]
    )
    ended = CounterMetricFamily(
        "smpbus_queue_ended",
        "Deliveries that ended, since the start.",
        labels=["destination", "result"],
    )  # fmt: skip
    consumers = GaugeMetricFamily(
        "smpbus_queue_consumers", "Sessions with credit.", labels=["destination"]
    )
    for row in report.queue_rows():
        name = row["destination"]
        for state in ("pending", "in_flight", "retrying"):
            messages.add_metric([name, state], row[state])
        # Not the totals: those go down when a dead letter is replayed or dropped.
        for result, count in report.engine.core.queues[name].ended.items():
            ended.add_metric([name, result], count)
        consumers.add_metric([name], row["consumers"])
    yield messages
    yield ended
    yield consumers
