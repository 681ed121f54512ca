"""Which attacks there are: who takes part in each, and what else happens meanwhile."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Attack:
    """One attack. `attackers` are names of tests.siege.attacker; `partner` is how the partners
    behave (tests.siege.evil); `needs` are connectors without which there is nothing to attack."""

    name: str
    attackers: tuple[str, ...] = ()
    partner: str = ""
    needs: tuple[str, ...] = ()
    reader_stops: bool = False  # who reads the logs stands still
    fills: bool = False  # the disk is nearly full, and one peer's bulk takes what is left
    in_test: bool = False  # part of the short form in `make test`


DOORS: Final = ("sys112",)
CALLED: Final = ("sys112", "smp")
ATTACKS: Final = (
    Attack("big flood", ("big_flood",), in_test=True),
    Attack("big flood, deaf", ("big_flood_deaf",)),
    Attack("small flood", ("small_flood", "small_flood")),
    Attack("never reads", ("never_reads", "feeder"), in_test=True),
    Attack("never settles", ("never_settles", "feeder")),
    Attack("retries without pause", ("retries_without_pause", "feeder")),
    Attack("answers of 15 MB", ("asks_and_never_reads", "answers_hugely"), in_test=True),
    Attack("invalid by the thousand", ("invalid_by_the_thousand",), in_test=True),
    Attack("broken frames", ("broken_frames",)),
    Attack("sessions without end", ("sessions_without_end",)),
    Attack("strangers", ("strangers",), in_test=True),
    Attack("foreign keys", ("foreign_keys",)),
    Attack("chosen ids", ("chosen_ids",), in_test=True),
    Attack("ops unfinished", ("ops_unfinished",), in_test=True),
    Attack("ops questions", ("ops_questions",)),
    Attack("ops dead letters", ("ops_dead_letters",)),
    Attack("events noise", ("events_noise",)),
    Attack("page unfinished", ("page_unfinished",)),
    Attack("page questions", ("page_questions",)),
    Attack("slow heads", ("slow_heads",), needs=DOORS),
    Attack("slow bodies", ("slow_bodies",), needs=DOORS),
    Attack("endless chunks", ("endless_chunks",), needs=DOORS, in_test=True),
    Attack("silent connections", ("silent_connections",), needs=DOORS, in_test=True),
    Attack("malformed", ("malformed",), needs=DOORS),
    Attack("giant answers", partner="giant", needs=CALLED, in_test=True),
    Attack("dripping answers", partner="drip", needs=CALLED),
    Attack("cookies", partner="cookies", needs=CALLED, in_test=True),
    Attack("redirects", partner="redirect", needs=CALLED),
    Attack("garbage answers", partner="garbage", needs=CALLED),
    Attack("a gateway's page", partner="page", needs=CALLED),
    Attack("log reader stops", ("malformed", "broken_frames"), needs=DOORS, reader_stops=True,
           in_test=True),
    Attack("bulk against reserve", ("bulk",), fills=True),
)  # fmt: skip
