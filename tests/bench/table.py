"""What a load run found: the table, and whether each acceptance was met."""

import os
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from connectors.simulators.kit.people import COUNT as PEOPLE
from tests.bench import machine
from tests.bench.journal import Story, quantile
from tests.bench.traffic import BRIGADES, CREW, Phase, Plan, Traffic
from tests.bench.watch import COUNTED, SERVED, Moment, Watch
from tests.integration.house import check_calls, check_care, check_reactions

CARD_S = 1.0
CACHED = 0.95
JUDGED = ("sustained", "burst")


@dataclass
class Result:
    """Everything that was seen. `partners` are the ledgers of the simulators at the end, `books`
    what the router answered to `check`, `calm` whether everything came to its end."""

    plan: Plan
    traffic: Traffic
    watch: Watch
    story: Story
    partners: dict[str, Any]
    books: dict[str, Any]
    memory: dict[str, tuple[float, float]]
    calm: bool

    def ledger(self, system: str) -> Any:
        """Return the ledger of a simulator, as the checks of whole calls ask for it."""
        return self.partners[system]

    # -- what was measured ----------------------------------------------------------------------

    @cached_property
    def card_s(self) -> dict[str, list[float]]:
        """How long each card took by phase: from the moment at which System-112 was to send it
        until the simulated ambulance noted it in its ledger."""
        taken: dict[str, list[int]] = defaultdict(list)
        for entry in self.partners["smp"]["entries"]:
            if entry["operation"] == "IncidentCard":
                taken[entry["id112"]].append(entry["taken_ms"])
        found: dict[str, list[float]] = defaultdict(list)
        for push in self.plan.pushes:
            sample = push.sample
            if sample.operation != "update" or sample.kind == "double":
                continue  # the second of a double is known by its id and goes nowhere
            times = taken[sample.id112]
            due_s = self.traffic.began_s + push.due_s
            took_s = times.pop(0) / 1000 - due_s if times else float("inf")
            found[self.plan.phase_at(push.due_s)].append(took_s)
        return found

    @cached_property
    def lookups(self) -> dict[str, Counter[str]]:
        """How lookups ended, by kind, over the phases that are judged."""
        first = next(self.watch.moments[one] for one in JUDGED if one in self.watch.moments)
        last = self.watch.moments[""].lookups
        return {kind: row - first.lookups.get(kind, Counter()) for kind, row in last.items()}

    @cached_property
    def hit_rate(self) -> float:
        """The part of all lookups that the cache served."""
        counts = sum(self.lookups.values(), Counter[str]())
        return sum(counts[one] for one in SERVED) / max(1, counts.total())

    def _rates(self, phase: Phase) -> tuple[float, float]:
        seconds, story = phase.seconds, self.story
        return (
            story.rate(phase.name, seconds, telemetry=False),
            story.rate(phase.name, seconds, telemetry=True),
        )

    @property
    def _refused(self) -> dict[str, int]:
        """What was not taken at once, by where that was noticed."""
        answers = self.partners["sys112"]["answers"]
        return {
            "by the router": self.watch.moments[""].counters["refused"],
            "to System-112": sum(answer["status"] >= 300 for answer in answers),
            "to the ambulance": len(self.partners["smp"]["refused"]),
            "put off at System-112": self.partners["sys112"]["pushes_repeated"],
            "put off at the ambulance": self.partners["smp"]["posts_repeated"],
            **{f"of {what}": count for what, count in self.traffic.failed.items() if count},
        }

    @cached_property
    def wrong(self) -> list[str]:
        """What is not as it must be, however slow the machine is."""
        found = [f"refused {where}: {count}" for where, count in self._refused.items() if count]
        if not self.calm:
            found.append("calls still lived, or deliveries waited, at the end")
        found += [f"not settled: {count} {type}" for type, count in self.story.unsettled.items()]
        found += [f"the books are wrong at {name}" for name in self.books["wrong"]]
        seen = sum(map(len, self.traffic.seen_s.values()))
        if seen != self.traffic.sent["positions"] or self.traffic.disordered:
            sent, late = self.traffic.sent["positions"], self.traffic.disordered
            found.append(f"positions: sent {sent}, seen {seen}, out of order {late}")
        day = [push.sample for push in self.plan.pushes]
        this: Any = self  # it has what these look at
        checks: tuple[Callable[[], None], ...] = (
            lambda: check_calls(this, day),
            lambda: check_reactions(this),
            lambda: check_care(this),
        )
        for check in checks:
            try:
                check()
            except AssertionError as error:
                line = traceback.extract_tb(error.__traceback__)[-1].line or ""
                found.append(f"a call is not whole: {(str(error) or line).splitlines()[0][:120]}")
        return found

    @property
    def _filled(self) -> bool:
        """Whether everybody was asked for once before what is judged began, so that the rate is
        that of a day and not of its first minute."""
        begin = next(begin for begin, _, phase in self.plan.windows() if phase.name in JUDGED)
        calls = sum(p.opens_call is not None and p.due_s < begin for p in self.plan.pushes)
        return calls >= PEOPLE

    @property
    def summary(self) -> dict[str, Any]:
        """The figures for a machine to read."""
        rates = {phase.name: self._rates(phase) for phase in self.plan.phases}
        return {
            "verdicts": {name: met for name, met, _ in self.verdicts},
            "wrong": self.wrong,
            "calls": len(self.partners["smp"]["calls"]),
            "rates": {name: [round(one, 1) for one in pair] for name, pair in rates.items()},
            "card_p99_ms": {
                name: round(quantile(self.card_s[name], 0.99) * 1000) for name in self.card_s
            },
            "lookups_cached": round(self.hit_rate, 4),
        }

    # -- what is judged -------------------------------------------------------------------------

    def judge(self, business: float, telemetry: float, total: float) -> None:
        """Compare with what was asked for, in messages a second."""
        self.verdicts: list[tuple[str, bool, str]] = []
        for phase in self.plan.phases:
            if phase.name not in JUDGED:
                continue
            rates = self._rates(phase)
            burst = phase.name == "burst"
            met = sum(rates) >= total if burst else rates[0] >= business and rates[1] >= telemetry
            wanted = f"{total:g}/s" if burst else f"{business:g} + {telemetry:g}/s"
            said = f"{wanted} for {phase.seconds:g} s: {rates[0]:.1f} + {rates[1]:.1f}/s accepted"
            self.verdicts.append((phase.name, met, said))
            p99_s = quantile(self.card_s[phase.name], 0.99)
            said = f"card to dispatcher p99 {p99_s * 1000:,.0f} ms, under {CARD_S * 1000:,.0f}"
            self.verdicts.append((f"card, {phase.name}", p99_s < CARD_S, said))
        refused = sum(self._refused.values())
        self.verdicts.append(("refused", not refused, f"nothing refused: {refused}"))
        said = "all settled, in order, once in effect, every call whole, the books balance"
        self.verdicts.append(("whole", not self.wrong, "; ".join([said, *self.wrong[:5]])))
        if self._filled:
            cached = self.hit_rate
            said = f"lookups served by the cache {cached:.1%}, at least {CACHED:.0%}"
            self.verdicts.append(("lookups", cached >= CACHED, said))

    # -- what is printed ------------------------------------------------------------------------

    def print(self) -> None:
        """Print the table and the verdicts."""
        self._print_phases()
        self._print_destinations()
        self._print_lookups()
        self._print_processes()
        print()
        for name, met, said in self.verdicts:
            print(f"{'met   ' if met else 'MISSED'} {name + ':':17s} {said}")

    def _print_phases(self) -> None:
        print("\nphase         s   cards/s  offered   business  telemetry     card ms"
              "  p50    p99    max   position ms  p50    p99    max   others'  stolen")  # fmt: skip
        for begin, end, phase in self.plan.windows():
            pushes = sum(begin <= push.due_s < end for push in self.plan.pushes)
            business, telemetry = self._rates(phase)
            cards = [one * 1000 for one in self.card_s[phase.name]]
            seen = [one * 1000 for one in self.traffic.seen_s[phase.name]]
            others, stolen = self._others(phase.name)
            print(
                f"{phase.name:9s} {phase.seconds:5g} {pushes / phase.seconds:9.2f}"
                f" {phase.business + phase.telemetry:8.0f} {business:10.1f} {telemetry:10.1f}"
                f"{_three(cards):>33s}{_three(seen):>34s} {others:9.0%} {stolen:7.0%}"
            )
        per_call = self.story.total(telemetry=False) / max(1, len(self.partners["smp"]["calls"]))
        phone = self.story.total(telemetry=True) - self.traffic.sent["positions"]
        per_call_phone = phone / max(1, self.traffic.sent["calls"])
        print(
            "offered: messages/s aimed at; business, telemetry: messages/s accepted, by the"
            " journal. A card's time is from its moment in the plan until the simulated ambulance"
            f" noted it. One call made {per_call:.1f} business messages and {per_call_phone:.1f} of"
            f" telephony. The driver was late by {self.traffic.late_s * 1000:.0f} ms at most;"
            " others': processor time of other processes, of all cores."
        )
        refused = "; ".join(f"{where} {count}" for where, count in self._refused.items())
        print(f"refused or put off: {refused}. Deliveries tried again: {self.story.again}."
              f" Timers that wait on purpose: {self.story.timers}.")  # fmt: skip

    def _print_destinations(self) -> None:
        print("\nsettled, ms from accepted    " + "".join(f"{one:>34s}" for one in JUDGED))
        print("destination              " + "      count    p50    p99    max  peak" * len(JUDGED))
        names = sorted({name for _, name in self.story.settle_ms})
        for name in names:
            line = f"{name:25s}"
            for phase in JUDGED:
                times = self.story.settle_ms.get((phase, name), [])
                peak = self.watch.peaks.get((phase, name), 0)
                line += f"{len(times):11,d}{_three(times):>21s}{peak:6d}"
            print(line)

    def _print_lookups(self) -> None:
        print("\nlookups              " + "".join(f"{one:>9s}" for one in COUNTED) + "   cached")
        for kind, counts in sorted(self.lookups.items()):
            cached = sum(counts[one] for one in SERVED) / max(1, counts.total())
            cells = "".join(f"{counts[one]:9,d}" for one in COUNTED)
            print(f"{kind:21s}{cells}{cached:9.1%}")
        asked = "after a warm-up that asked for each of them once"
        if not self._filled:
            asked = "too few for a verdict: the warm-up was too short to ask for each of them once"
        print(
            f"Of {PEOPLE} people, of whom 4 in 5 are known, and {BRIGADES * CREW} workers; {asked}."
        )

    def _print_processes(self) -> None:
        print("\nprocess        " + "".join(f"{one + ', cores':>18s}" for one in JUDGED)
              + "   RSS MB  at most")  # fmt: skip
        for name, (rss, peak) in sorted(self.memory.items()):
            cells = "".join(f"{self._cores(name, phase):18.3f}" for phase in JUDGED)
            print(f"{name:15s}{cells}{rss:9.0f}{peak:9.0f}")
        total = "".join(
            f"{sum(self._cores(name, phase) for name in self.memory):18.3f}" for phase in JUDGED
        )
        print(f"{'all':15s}{total}{sum(rss for rss, _ in self.memory.values()):9.0f}")

    def _span(self, phase: str) -> tuple[Moment, Moment] | None:
        names = [one.name for one in self.plan.phases]
        if phase not in self.watch.moments:
            return None
        at = names.index(phase) + 1
        after = names[at] if at < len(names) else ""
        return self.watch.moments[phase], self.watch.moments[after]

    def _cores(self, name: str, phase: str) -> float:
        span = self._span(phase)
        if span is None:
            return 0.0
        first, last = span
        used = last.cpu_s.get(name, 0.0) - first.cpu_s.get(name, 0.0)
        return used / max(0.001, last.at_s - first.at_s)

    def _others(self, phase: str) -> tuple[float, float]:
        """Return which part of all cores other processes used, and the host gave to others."""
        span = self._span(phase)
        if span is None:
            return 0.0, 0.0
        first, last = span
        own = sum(last.cpu_s.values()) - sum(first.cpu_s.values())
        cores_s = (os.cpu_count() or 1) * max(0.001, last.at_s - first.at_s)
        others = (last.busy_s - first.busy_s - own) / cores_s
        return max(0.0, others), machine.share(first.stolen, last.stolen)


def _three(values: list[Any]) -> str:
    """Return p50, p99 and the highest."""
    numbers = (quantile(values, 0.5), quantile(values, 0.99), max(values, default=0))
    return "".join(f"{number:7,.0f}" for number in numbers)
