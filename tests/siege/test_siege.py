"""The campaign of `make siege`, short: everything but time is judged."""

from tests.siege.attacks import ATTACKS
from tests.siege.campaign import Siege, besiege, last_line

ATTACK_S = 0.5


def test_no_attack_loses_disorders_or_ends_anything() -> None:
    attacks = tuple(attack for attack in ATTACKS if attack.in_test)
    siege = Siege(attacks, 1.0, ATTACK_S, by_time=False)
    besiege(siege, ("sys112", "smp"))
    print(last_line(siege))
    assert siege.sentences() == []
    assert len(siege.lines) == len(attacks) + 1
