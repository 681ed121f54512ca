"""The part of the metrics page that peers report of themselves, with a bounded set of labels.

A peer may report new names every time. For each connector the first few systems and kinds since the
router's start get series, later ones get none: neither the page nor what a monitor keeps of it can
grow with what a peer makes up.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from proto.report import FAILURES, LookupReport
from router.shell.partners import ABSENT, Connector

SYSTEMS_MAX: Final = 8
KINDS_MAX: Final = 16
RESULTS: Final = ("near", "far", "stale", "joined", "missed", "failed")
NEW: Final = "since the start of its process"


class Labels:
    """Which systems and kinds have series: of each connector the first ones seen."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[str]] = {}

    def admit(self, connector: str, label: str, value: str, most: int) -> bool:
        """Whether this value of a label has series."""
        known = self._known.setdefault((connector, label), [])
        if value not in known and len(known) < most:
            known.append(value)
        return value in known


def partner_metrics(connectors: list[Connector], labels: Labels) -> Iterator[Metric]:
    """Yield what connectors report."""
    yield from _connectors(connectors)
    yield from _partners(connectors, labels)
    yield from _lookups(connectors, labels)


def _connectors(connectors: list[Connector]) -> Iterator[Metric]:
    own = ["connector"]
    up = GaugeMetricFamily("smpbus_connector_up", "Whether it has a session.", labels=own)
    at = GaugeMetricFamily(
        "smpbus_connector_report_timestamp_seconds", "When it reported last.", labels=own
    )
    rejected = CounterMetricFamily(
        "smpbus_connector_rejected_inputs", f"Inputs of its partners refused, {NEW}.", labels=own
    )
    away = CounterMetricFamily(
        "smpbus_connector_turned_away", f"Requests without a right to ask, {NEW}.", labels=own
    )
    waiting = GaugeMetricFamily(
        "smpbus_connector_waiting_messages", "Messages that wait for the bus.", labels=own
    )
    for one in connectors:
        up.add_metric([one.name], one.state != ABSENT)
        if one.report is not None and one.reported_at is not None:
            at.add_metric([one.name], one.reported_at / 1000)
            rejected.add_metric([one.name], one.report.rejected)
            away.add_metric([one.name], one.report.turned_away)
            waiting.add_metric([one.name], one.report.waiting)
    yield from (up, at, rejected, away, waiting)


def _partners(connectors: list[Connector], labels: Labels) -> Iterator[Metric]:
    own = ["connector", "system"]
    up = GaugeMetricFamily("smpbus_partner_up", "Whether it answered the last time.", labels=own)
    open_ = GaugeMetricFamily("smpbus_breaker_open", "Whether it is left alone.", labels=own)
    requests = CounterMetricFamily(
        "smpbus_partner_requests", f"Requests that went out, {NEW}.", labels=own
    )
    failures = CounterMetricFamily(
        "smpbus_partner_failures", f"Requests that failed, {NEW}.", labels=[*own, "kind"]
    )
    took = Metric(
        "smpbus_partner_request_duration_seconds",
        f"Of answers: quantiles of the last minute, sum and count {NEW}.",
        "summary",
    )
    for one in connectors:
        for partner in one.partners():
            if not labels.admit(one.name, "system", partner.system, SYSTEMS_MAX):
                continue
            at = [one.name, partner.system]
            if partner.up is not None:
                up.add_metric(at, partner.up)
            open_.add_metric(at, partner.breaker != "closed")
            requests.add_metric(at, partner.requests)
            kinds = Counter(dict.fromkeys(FAILURES, 0))
            for kind, count in partner.failures.items():
                kinds[kind if kind in FAILURES else "other"] += count
            for kind, count in kinds.items():
                failures.add_metric([*at, kind], count)
            named = dict(zip(own, at, strict=True))
            quantiles = (partner.p50_ms, partner.p99_ms)
            _summarise(took, named, quantiles, partner.answer_ms, partner.answers)
    yield from (up, open_, requests, failures, took)


def _lookups(connectors: list[Connector], labels: Labels) -> Iterator[Metric]:
    own = ["connector", "kind"]
    results = CounterMetricFamily(
        "smpbus_lookup_requests", f"Cached questions, {NEW}.", labels=[*own, "result"]
    )
    took = Metric("smpbus_lookup_duration_seconds", f"Of lookups, {NEW}.", "summary")
    for one in connectors:
        for lookup in one.lookups():
            if labels.admit(one.name, "kind", lookup.kind, KINDS_MAX):
                for result in RESULTS:
                    results.add_metric([one.name, lookup.kind, result], getattr(lookup, result))
                _summarise_lookup(took, one.name, lookup)
    yield from (results, took)


def _summarise_lookup(took: Metric, connector: str, lookup: LookupReport) -> None:
    named = {"connector": connector, "kind": lookup.kind}
    _summarise(took, named, (lookup.p50_ms, lookup.p99_ms), lookup.total_ms, lookup.count)


def _summarise(
    metric: Metric,
    named: dict[str, str],
    quantiles: tuple[float | None, float | None],
    total_ms: float,
    count: int,
) -> None:
    for share, ms in zip(("0.5", "0.99"), quantiles, strict=True):
        if ms is not None:
            metric.add_sample(metric.name, {**named, "quantile": share}, ms / 1000)
    metric.add_sample(f"{metric.name}_sum", named, total_ms / 1000)
    metric.add_sample(f"{metric.name}_count", named, count)
