"""Which partners answer: what connectors report, and which connectors are not connected.

Kept in memory only, from the sessions of the core. A session's report is read when it is wanted,
once. Of several sessions of one name the one that greeted last speaks.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from proto.report import LookupReport, PartnerReport, PeerReport, read_report
from router.core.session import Session

if TYPE_CHECKING:
    from router.core.core import Core

UNREADABLE: Final = "unreadable"
REPORTING: Final = "reporting"
SILENT: Final = "silent"
ABSENT: Final = "absent"


class Connector(NamedTuple):
    """One peer that consumes or reports: `state` is one of the words above, `since` when its
    session began or ended (None: it was not here since the router's start)."""

    name: str
    state: str
    since: int | None
    sessions: int = 0
    reported_at: int | None = None
    report: PeerReport | None = None

    def partners(self) -> list[PartnerReport]:
        """Return its partners, each system once."""
        found = {} if self.report is None else {one.system: one for one in self.report.partners}
        return list(found.values())

    def lookups(self) -> list[LookupReport]:
        """Return its lookups, each kind once."""
        found = {} if self.report is None else {one.kind: one for one in self.report.lookups}
        return list(found.values())


class Partners:
    """Reads the reports of the core's sessions."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._read: dict[bytes, tuple[bytes, PeerReport | None]] = {}  # by the session's peer
        self._states: dict[tuple[str, str], str] = {}

    def connectors(self) -> list[Connector]:
        """Return everybody whom the configuration lets consume, and whoever else reports.

        Operators consume as well, but come and go as they like.
        """
        by_name: dict[str, list[Session]] = {}
        for session in self._core.sessions.values():
            by_name.setdefault(session.name, []).append(session)
        configured = {
            name
            for name, permission in self._core.settings.permissions.items()
            if permission.consume and not permission.operate
        }
        reporting = {name for name, own in by_name.items() if any(one.report for one in own)}
        found = [self._one(name, by_name.get(name, [])) for name in configured | reporting]
        return sorted(found)

    def _one(self, name: str, sessions: list[Session]) -> Connector:
        if not sessions:
            return Connector(name, ABSENT, self._core.left.get(name))
        # The order of the core's sessions is that of their greetings.
        session = next((one for one in reversed(sessions) if one.report), sessions[-1])
        report = self._report(session) if session.report else None
        state = UNREADABLE if report is None else REPORTING
        return Connector(
            name,
            state if session.report else SILENT,
            session.since,
            len(sessions),
            session.reported_at,
            report,
        )

    def _report(self, session: Session) -> PeerReport | None:
        raw, report = self._read.get(session.peer, (b"", None))
        if raw is not session.report:
            report = read_report(session.report)
            if report is not None:
                report = _printable(report)
            self._read[session.peer] = session.report, report
        return report

    def watch(self) -> list[dict[str, object]]:
        """Compare with the last time; once a second is enough. Returns an event for every
        connector and partner whose state is another, and for a partner that is down when it is
        first heard of."""
        self._read = {
            peer: read for peer, read in self._read.items() if peer in self._core.sessions
        }
        states = dict(_states(self.connectors()))
        events: list[dict[str, object]] = [
            {"name": name, "system": system or None, "state": state}
            for (name, system), state in states.items()
            if self._states.get((name, system), "up" if state == "down" else state) != state
        ]
        self._states = states
        return events

    def rows(self, *, whole: bool = True) -> list[dict[str, Any]]:
        """Return a row per connector, as JSON has it; `whole` with its own figures."""
        return [_row(one, whole) for one in self.connectors()]


def all_well(connectors: list[Connector]) -> bool:
    """Whether every partner that was asked answers, and every connector that was here still is.

    One that never came since the router's start is perhaps not used in this region.
    """
    return not any(
        one.state == UNREADABLE
        or (one.state == ABSENT and one.since is not None)
        or any(partner.up is False for partner in one.partners())
        or (one.report is not None and (one.report.not_given or one.report.hanging))
        for one in connectors
    )


def _states(connectors: list[Connector]) -> Iterator[tuple[tuple[str, str], str]]:
    for one in connectors:
        yield (one.name, ""), one.state
        for partner in one.partners():
            yield (one.name, partner.system), word_of(partner.up)


def word_of(up: bool | None) -> str:
    """Return the state of a partner as a word."""
    return "unknown" if up is None else "up" if up else "down"


def _row(one: Connector, whole: bool) -> dict[str, Any]:
    report = one.report or PeerReport()
    row: dict[str, Any] = {
        "connector": one.name,
        "state": one.state,
        "since": one.since,
        "sessions": one.sessions,
        "reported_at": one.reported_at,
        "partners": [_plain(partner) for partner in one.partners()],
        "lookups": [_lookup_row(lookup) for lookup in one.lookups()],
        "cache": report.cache,
        "rejected": report.rejected,
        "waiting": report.waiting,
        "not_given": report.not_given,
        "hanging": report.hanging,
        "set_aside": report.set_aside,
        "turned_away": report.turned_away,
    }
    return row | {"figures": report.figures} if whole else row


def _lookup_row(lookup: LookupReport) -> dict[str, Any]:
    rate = round(lookup.hits / lookup.count, 4) if lookup.count else None
    return {**_plain(lookup), "count": lookup.count, "hit_rate": rate}


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _printable(report: PeerReport) -> PeerReport:
    """Names go to terminals and onto pages: nothing in them may steer those."""
    partners = [
        msgspec.structs.replace(one, system=_printed(one.system)) for one in report.partners
    ]
    return msgspec.structs.replace(
        report,
        partners=partners,
        not_given={_printed(name): _printed(code) for name, code in report.not_given.items()},
        hanging={_printed(what): count for what, count in report.hanging.items()},
    )


def _printed(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name)
