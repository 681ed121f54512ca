"""Tells the router, for operators, how a connector and its partners are.

Every few seconds, and as soon as a partner falls silent, is left alone or comes back, a queue is
not given or a call hangs.
"""

from collections.abc import Mapping
from typing import Any, Final

from connectors.runtime.accesses import WrittenAccesses
from connectors.runtime.bus.connector import Connector
from connectors.runtime.log import LOG
from connectors.runtime.outside import hanging
from connectors.runtime.partner.partner import Partner
from proto import clock
from proto.report import LookupReport, PartnerReport, PeerReport
from proto.wording import text

EVERY_S: Final = 5.0
LOOK_S: Final = 0.5
SELDOM: Final = 200  # times the time that the own figures take
PARTNERS_MAX: Final = 8
KINDS_MAX: Final = 16
SYSTEM_MAX: Final = 64


class Reporter:
    """Reports for one connector; `run` it beside everything else."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._told: object = None
        self._told_at = -EVERY_S
        self._own: dict[str, Any] = {}
        self._own_after = 0.0
        self._mistake = ""

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            now = clock.monotonic()
            state = (
                [
                    (partner.outage.up, partner.breaker.state(now))
                    for partner in self._connector.partners()
                ],
                self._connector.not_given(),
                hanging(),
            )
            if state != self._told or now - self._told_at >= EVERY_S:
                self._told, self._told_at = state, now
                self._tell(now)
            await clock.sleep(LOOK_S)

    def _tell(self, now: float) -> None:
        connector = self._connector
        for state in connector.states():
            state.look()
        if now >= self._own_after:
            self._gather(now)
        try:
            connector.bus.report(report_of(connector, self._own, now))
        except (TypeError, ValueError) as error:  # no JSON, or without end: the rest matters more
            self._complain(error)
            self._tell_bare(now)

    def _tell_bare(self, now: float) -> None:
        """Report without the connector's own figures; that it cannot be told must not end it."""
        try:
            report = report_of(self._connector, {"lookup": self._own.get("lookup")}, now)
            self._connector.bus.report(report)
        except Exception as error:
            self._complain(error)

    def _gather(self, now: float) -> None:
        """Ask for the connector's own figures; that they cannot be had must not end it. They come
        from files, too: what takes long is asked for seldom."""
        try:
            self._own = self._connector.figures()
        except Exception as error:
            self._own = {}
            self._complain(error)
        self._own_after = now + (clock.monotonic() - now) * SELDOM

    def _complain(self, error: Exception) -> None:
        kind = type(error).__name__  # the text may hold personal data
        if kind != self._mistake:
            LOG.error(text("connector.no_figures", kind=kind))
        self._mistake = kind


def report_of(connector: Connector, own: Mapping[str, Any], now: float) -> PeerReport:
    """Return the report of a connector whose own figures are `own`; `now` is monotonic seconds.

    What a connector tells of lookups in `own["lookup"]` (`Lookup.figures()`) becomes one shape for
    all; the rest goes along as it is.
    """
    figures = {name: value for name, value in own.items() if name != "lookup"}
    states = [*connector.states()]
    if isinstance(connector.accesses, WrittenAccesses):
        states.append(connector.accesses.alarm)
    if away := {str(state.file): state.reason for state in states if state.reason}:
        figures["state_files_away"] = away
    if turned_away := connector.refusals.counts:
        figures["turned_away"] = dict(turned_away)
    lookup = own.get("lookup") or {}
    memcached = lookup.get("memcached")
    return PeerReport(
        partners=[_partner(one, now) for one in connector.partners()[:PARTNERS_MAX]],
        lookups=[_lookup(*one) for one in list(lookup.get("kinds", {}).items())[:KINDS_MAX]],
        cache=None if memcached is None else bool(memcached["answers"]),
        rejected=connector.ingress.rejected,
        waiting=connector.waiting(),
        not_given=dict(list(connector.not_given().items())[:KINDS_MAX]),
        hanging=dict(list(hanging().items())[:KINDS_MAX]),
        set_aside=connector.set_aside(),
        turned_away=connector.refusals.count,
        figures=figures,
    )


def _partner(partner: Partner, now: float) -> PartnerReport:
    outage, tally = partner.outage, partner.tally
    return PartnerReport(
        system=outage.system[:SYSTEM_MAX],
        up=outage.up,
        since=outage.since,
        answered_at=outage.answered_at,
        breaker=partner.breaker.state(now),
        requests=tally.requests,
        answers=tally.ever.count,
        answer_ms=round(tally.ever.total_ms, 1),
        failures=dict(tally.failures),
        p50_ms=tally.recent.quantile_ms(0.5, now),
        p99_ms=tally.recent.quantile_ms(0.99, now),
    )


def _lookup(kind: str, row: Mapping[str, Any]) -> LookupReport:
    known = {name: row[name] for name in LookupReport.__struct_fields__ if name in row}
    return LookupReport(kind=kind, **known)
