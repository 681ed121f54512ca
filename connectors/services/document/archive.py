"""Documents from their making to their registration: one SQLite file.

A document is registered days after it was sent; until then the register may ask for its file. The
state goes forward only: what was registered is not "accepted" again by an answer that comes late.
The file holds patients' data and is its owner's alone.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import apsw

from connectors.runtime.statefile import StateFile
from proto.exits import StartError
from proto.retention import DAY_S, Retention
from proto.wording import text

# How long a word about an exchange may come: a document is given up sooner.
EXCHANGE_KEPT_S: Final = 90 * 86_400.0
State = Literal["sent", "accepted", "registered", "rejected", "gave_up"]
RANK: Final[dict[State, int]] = {
    "sent": 0, "accepted": 1, "rejected": 2, "gave_up": 2, "registered": 3,
}  # fmt: skip
KEPT_S: Final = Retention().document_file_days * DAY_S
ROW_KEPT_S: Final = Retention().document_row_days * DAY_S
FEW, STEP = 10, 200  # documents that go at once: beside a new one, and when there is time
_COLUMNS: Final = (
    "uid, card, card_version, number, version, call, subject, state, remote, code, message,"
    " sends, source, file, signature, digest, made_at"
)
_SCHEMA: Final = """
create table if not exists document (
    uid text primary key,
    card text not null,
    card_version integer not null,
    number text not null,
    version integer not null,
    call text not null,
    subject text not null,
    state text not null,
    remote text,
    code text,
    message text,
    sends integer not null default 0,
    source blob not null,
    file blob not null,
    signature blob not null,
    digest text not null,
    made_at integer not null,
    changed_at integer not null,
    unique (card, card_version)
);
create index if not exists document_message on document (message);
create index if not exists document_changed on document (state, changed_at);
create table if not exists exchange (  -- each that we began, and the register's word about it
    message text primary key,
    uid text not null,
    word text not null default '',
    begun_at integer not null
) without rowid;
create index if not exists exchange_uid on exchange (uid);
create index if not exists exchange_begun on exchange (begun_at);
insert or ignore into exchange select message, uid, '', changed_at from document
    where coalesce(message, '') <> '' and not exists (select 1 from exchange);
create table if not exists given (  -- how often the file was given out in this exchange
    uid text primary key,
    times integer not null
) without rowid;
create table if not exists contradicted (
    uid text primary key
) without rowid;
"""


@dataclass(frozen=True)
class Document:
    """One version of one document. `number` is that of all its versions, `remote` the register's
    own, `message` the id of the exchange in which it was sent last, `sends` how often it was;
    `source` is the call card it was made of."""

    uid: str
    card: str
    card_version: int
    number: str
    version: int
    call: str
    subject: str
    state: State
    remote: str | None
    code: str | None
    message: str | None
    sends: int
    source: bytes
    file: bytes
    signature: bytes
    digest: str
    made_at: int


class Archive:
    """The file of one connector. Every method raises StateAway while it cannot be used: a document
    that is not kept is not sent."""

    def __init__(self, file: Path, retention: Retention | None = None) -> None:
        """Raises StartError when the file cannot be used."""
        self._retention = retention
        try:
            self._db = StateFile(file, _SCHEMA)
        except (apsw.Error, OSError) as error:
            raise StartError(text("document.archive", file=file, reason=str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def state(self) -> StateFile:
        """The file itself, for operators."""
        return self._db

    def of_card(self, card: str, card_version: int) -> Document | None:
        """Return the document of a version of a card."""
        return self._one("card = ? and card_version = ?", card, card_version)

    def of_uid(self, uid: str) -> Document | None:
        """Return a document."""
        return self._one("uid = ?", uid)

    def of_message(self, message: str) -> Document | None:
        """Return the document that was sent last under a message id."""
        return self._one("message = ?", message)

    def of_exchange(self, message: str, uid: str = "") -> Document | None:
        """Return the document of an exchange that we began; None also when whoever speaks of it
        means another document, `uid`."""
        if not message:
            return None
        document = self._one("uid = (select uid from exchange where message = ?)", message)
        return None if document and uid and document.uid != uid else document

    def newest(self, card: str) -> tuple[int, int]:
        """Return the newest card version and document version of a card; 0, 0 for none."""
        row = self._db.execute(
            "select coalesce(max(card_version), 0), coalesce(max(version), 0) from document"
            " where card = ?",
            (card,),
        ).fetchone()
        return (int(str(row[0])), int(str(row[1]))) if row else (0, 0)

    def keep(self, document: Document) -> None:
        """Keep a new document; files of those long ended go."""
        now = int(time.time())
        self.forget(FEW)
        values = [getattr(document, name.strip()) for name in _COLUMNS.split(",")]
        marks = ", ".join("?" * (len(values) + 1))
        with self._db:
            self._db.execute(
                f"insert into document ({_COLUMNS}, changed_at) values ({marks})", (*values, now)
            )

    def forget(self, limit: int = STEP) -> None:
        """Let go of the files of those long ended, and of rows that no version follows any more."""
        now, retention = time.time(), self._retention
        file_s = KEPT_S if retention is None else retention.document_file_days * DAY_S
        row_s = ROW_KEPT_S if retention is None else retention.document_row_days * DAY_S
        ended = "state in ('registered', 'rejected', 'gave_up') and changed_at < ?"
        with self._db:
            self._db.execute(
                "update document set file = x'', signature = x'', source = x'' where uid in"
                f" (select uid from document where {ended} and file <> x'' limit ?)",
                (now - file_s, limit),
            )
            self._db.execute(
                "delete from document where uid in"
                f" (select uid from document where {ended} limit ?)",
                (now - max(file_s, row_s), limit),
            )
            for table in ("given", "contradicted"):  # few, and of documents that are gone
                self._db.execute(f"delete from {table} where uid not in (select uid from document)")

    def sent(self, uid: str, message: str) -> None:
        """A document is being sent in the exchange `message`."""
        now = int(time.time())
        with self._db:
            self._db.execute(
                "update document set message = ?, sends = sends + 1 where uid = ?", (message, uid)
            )
            self._db.execute(
                "insert or ignore into exchange values (?, ?, '', ?)", (message, uid, now)
            )
            self._db.execute("delete from given where uid = ?", (uid,))
            self._db.execute(
                "delete from exchange where message in"
                " (select message from exchange where begun_at < ? limit 10)",
                (now - EXCHANGE_KEPT_S,),
            )

    def note_word(self, message: str, word: str) -> str:
        """Keep the register's word about an exchange; return the first one, which holds."""
        with self._db:
            self._db.execute(
                "update exchange set word = ? where message = ? and word = ''", (word, message)
            )
        row = self._db.execute("select word from exchange where message = ?", (message,)).fetchone()
        return str(row[0]) if row else ""

    def words(self, uid: str) -> list[tuple[str, str]]:
        """Return what the register has said about which exchanges of a document, in order."""
        rows = self._db.execute(
            "select message, word from exchange where uid = ? and word <> '' order by begun_at",
            (uid,),
        )
        return [(str(message), str(word)) for message, word in rows.fetchall()]

    def is_open(self, document: Document) -> bool:
        """Whether the register is at work on a document, and may ask for its file."""
        if document.message is None or document.state == "registered":
            return False
        if document.state in ("sent", "accepted"):
            return True
        row = self._db.execute(
            "select word from exchange where message = ?", (document.message,)
        ).fetchone()
        return row is not None and row[0] == ""

    def give(self, uid: str, times_max: int) -> bool:
        """Count that a file is given out; return False when it was often enough."""
        with self._db:
            row = self._db.execute("select times from given where uid = ?", (uid,)).fetchone()
            times = int(str(row[0])) if row else 0
            if times >= times_max:
                return False
            self._db.execute("insert or replace into given values (?, ?)", (uid, times + 1))
        return True

    def note_contradiction(self, uid: str) -> None:
        """Two words about a document contradict each other."""
        self._db.execute("insert or ignore into contradicted values (?)", (uid,))

    def contradicted(self) -> int:
        """Return about how many documents there were words that contradict each other."""
        row = self._db.execute("select count(*) from contradicted").fetchone()
        return int(str(row[0])) if row else 0

    def move(
        self, uid: str, state: State, *, remote: str | None = None, code: str | None = None
    ) -> bool:
        """Move on to `state`; return False if the document is there or further already."""
        document = self.of_uid(uid)
        if document is None or RANK[state] <= RANK[document.state]:
            return False
        with self._db:
            self._db.execute(
                "update document set state = ?, remote = coalesce(?, remote), code = ?,"
                " changed_at = ? where uid = ?",
                (state, remote, code, int(time.time()), uid),
            )
        return True

    def counts(self) -> dict[str, int]:
        """Return how many documents are in which state."""
        rows = self._db.execute("select state, count(*) from document group by state")
        return {str(state): int(str(count)) for state, count in rows}

    def _one(self, where: str, *values: str | int) -> Document | None:
        row = self._db.execute(f"select {_COLUMNS} from document where {where}", values).fetchone()
        return None if row is None else Document(*row)
