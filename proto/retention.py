"""[retention]: for how long each kind of data about people is kept, in days.

One table for the router and all connectors: the administrator sets it once and can show it to
whoever asks. Data whose time is over is overwritten in its file, not merely forgotten.
"""

from typing import Annotated, Final

import msgspec

DAY_S: Final = 86_400.0
DAY_MS: Final = 86_400_000
# Whole ones, or a part of one.
Days = (
    Annotated[int, msgspec.Meta(ge=1, le=36_500)] | Annotated[float, msgspec.Meta(gt=0, le=36_500)]
)


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table. Every value is days.

    Dead letters are kept from their death; none ends before it was told of for `dead_told_days`.
    `document_file_days` is for the file, the signature and the card of a document that has reached
    its end (registered, rejected, given up), `document_row_days` for its row, by which a later
    version is known. `fund_card_days` begin with the day of the call, `fund_ledger_days` (which
    card was in which register) with the month of the register. `hospital_days`, `sys112_days` and
    `external_days` are for which call is which there, `sql_days` for rows that have ended in the
    tables of the ambulance's database.
    """

    dead_days: Days = 90
    dead_emergency_days: Days = 365
    dead_told_days: Days = 7
    document_file_days: Days = 30
    document_row_days: Days = 1_095
    fund_card_days: Days = 550
    fund_ledger_days: Days = 1_830
    hospital_days: Days = 90
    sys112_days: Days = 30
    external_days: Days = 90
    sql_days: Days = 7
