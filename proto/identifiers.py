"""Identifiers: made by whoever speaks first, unique everywhere, sortable by the time of making."""

import os
import time
from random import Random

_random = Random()
os.register_at_fork(after_in_child=_random.seed)  # else parent and child would make the same ids


def new_id() -> str:
    """Return a UUID version 7 (RFC 9562, section 5.7) as 36 lower-case characters.

    Ids that grow with time keep the router's deduplication index append-mostly, which is what
    makes it cheap on a spinning disk. They are unique, not secret: a generator that the system
    seeded once is enough, and asking the system each time would cost more than all else here.
    """
    random = _random.getrandbits(74)
    value = (time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
