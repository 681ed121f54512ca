"""What the router says of itself: the status, its queues and sessions, and the metrics page.

All from the core's own numbers, without touching the store, so that an answer takes no longer
under full load than at rest.
"""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import apsw
import zmq
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proto.frames import PROTOCOL_VERSION
from proto.logs import lost_lines
from router.core.queue import Queue
from router.shell.partnermetrics import partner_metrics

if TYPE_CHECKING:
    from router.shell.daemon import Daemon


def versions() -> dict[str, Any]:
    """Return what is running."""
    return {
        "version": version("smpbus"),
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }


def queue_rows(daemon: "Daemon") -> list[dict[str, Any]]:
    """Return a row per destination."""
    return [_queue_row(queue) for _, queue in sorted(daemon.core.queues.items())]


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


def session_rows(daemon: "Daemon") -> list[dict[str, Any]]:
    """Return a row per session."""
    now = daemon.now()
    return [
        {
            "name": session.name,
            "software": session.software,
            "since": session.since,
            "last_heard_ms": now.mono_ms - session.heard_ms,
            "credit": {name: holding.window for name, holding in session.holdings.items()},
            "serves": sorted(name for name, one in session.holdings.items() if one.serves),
            "in_flight": session.held(),
            "published": session.published,
            "acked": session.acked,
            "reports": session.reports,
            "reported_at": session.reported_at,
        }
        for session in daemon.core.sessions.values()
    ]


def status(daemon: "Daemon") -> dict[str, Any]:
    """Return the whole state at one glance."""
    core = daemon.core
    return {
        **versions(),
        "bus": core.bus,
        "epoch": core.epoch,
        "pid": os.getpid(),
        "state": daemon.state,
        "started_at": daemon.started_at,
        "uptime_s": round((daemon.now().wall_ms - daemon.started_at) / 1000, 1),
        "listen": daemon.addresses,
        "counters": dict(core.counters),
        "open": sum(queue.open for queue in core.queues.values()),
        "sessions": len(core.sessions),
        "clock_doubted": core.is_clock_doubted(daemon.now()),
        "keys": daemon.keys(),
        "accesses": daemon.accesses.figures(),
        "queues": queue_rows(daemon),
        "partners": daemon.partners.rows(whole=False),
        "store": {
            "path": str(daemon.store_path),
            "bytes": daemon.store_bytes,
            "free_bytes": daemon.room.free_bytes,
            "empty_bytes": daemon.room.inside_bytes,
            "commits": daemon.writer.commits,
            "last_commit_ms": round(daemon.writer.commit_s * 1000, 3),
            "writable": not core.store_full,
        },
        "bounds": bounds(daemon),
        "loop": {"turns": daemon.turns, "last_turn_ms": round(daemon.turn_s * 1000, 3)},
        "rss_bytes": _rss_bytes(),
    }


def bounds(daemon: "Daemon") -> dict[str, Any]:
    """Return what is bounded: how much of it is taken, and how much there is."""
    if daemon.state == "starting":
        return {}
    bus, gate, peers = daemon.settings.bus, daemon.gate, daemon.peers
    return {
        "connections": len(gate),
        "connections_max": gate.connections_max,
        "connections_accepted": gate.accepted,
        "connections_shut": gate.shut_out,
        "keys_refused": max(0, gate.refused),
        "other_router_key": gate.other_key,
        "strangers": gate.strangers,
        "descriptors_max": daemon.descriptors,
        "sessions_max": bus.sessions_max,
        "unread_bytes": peers.unread,
        "unread_bytes_max": peers.unread_max,
        "unread_bytes_total": bus.unread_bytes_total,
        "gather_bytes": daemon.core.out.batch.size,
        "gather_bytes_max": bus.gather_bytes_max,
        "frames_unread_max": bus.frames_unread_max,
        "share_bytes_max": peers.share_max,
        "waiting_bytes": daemon.turn_taking.bytes,
        "waiting_bytes_max": bus.waiting_bytes_max,
        "errors_max": bus.errors_max,
        "peers_dismissed": peers.dismissed,
        "routing_ids_guessed": peers.guessed,
        "log_lines_lost": lost_lines(),
    }


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class _RouterCollector(Collector):
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        daemon = self._daemon
        info = GaugeMetricFamily(
            "smpbus_build_info", "What is running.", labels=["version", "python", "libzmq"]
        )
        running = versions()
        info.add_metric([running["version"], running["python"], running["libzmq"]], 1)
        yield info
        for name, value in daemon.core.counters.items():
            yield CounterMetricFamily(f"smpbus_{name}", f"Since the start: {name}.", value=value)
        yield from _queue_metrics(daemon)
        yield from partner_metrics(daemon.partners.connectors(), daemon.labels)
        yield GaugeMetricFamily(
            "smpbus_sessions", "Connected peers.", value=len(daemon.core.sessions)
        )
        commits = CounterMetricFamily("smpbus_store_commits", "Synced transactions.",
                                      value=daemon.writer.commits)  # fmt: skip
        yield commits
        yield CounterMetricFamily("smpbus_store_commit_seconds", "Time in synced transactions.",
                                  value=daemon.writer.commit_s_total)  # fmt: skip
        yield GaugeMetricFamily("smpbus_store_bytes", "Size of the journal on disk.",
                                value=daemon.store_bytes)  # fmt: skip
        yield GaugeMetricFamily("smpbus_loop_turn_duration_seconds", "The latest turn's.",
                                value=daemon.turn_s)  # fmt: skip
        yield GaugeMetricFamily("smpbus_resident_memory_bytes", "Resident memory.",
                                value=_rss_bytes())  # fmt: skip


def _queue_metrics(daemon: "Daemon") -> Iterator[Metric]:
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
    for row in queue_rows(daemon):
        name = row["destination"]
        for state in ("pending", "in_flight", "retrying"):
            messages.add_metric([name, state], row[state])
        # Not the totals: those go down when a dead letter is replayed or dropped.
        for result, count in daemon.core.queues[name].ended.items():
            ended.add_metric([name, result], count)
        consumers.add_metric([name], row["consumers"])
    yield messages
    yield ended
    yield consumers


def metrics_page(daemon: "Daemon") -> bytes:
    """Return the Prometheus text page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RouterCollector(daemon))
    return generate_latest(registry)
