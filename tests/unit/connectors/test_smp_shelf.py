"""The shelf of what is held for a partner, by properties: the clock is a number the test gives."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.smp.shelf import COMMITTED_KEPT, Shelf

STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3)),
    st.tuples(st.just("take"), st.integers(1, 5)),
    st.tuples(st.just("commit"), st.integers(0, 30)),
    st.tuples(st.just("pass"), st.integers(0, 15)),
)
HELD_S = 10.0


@given(st.lists(STEP, max_size=80))
def test_nothing_is_lost_nothing_is_given_out_twice_at_a_time(
    steps: list[tuple[str, int]],
) -> None:
    shelf: Shelf[str] = Shelf()
    waiting: dict[str, tuple[int, int]] = {}
    given_out: dict[str, float] = {}
    now, number = 0.0, 0
    for kind, argument in steps:
        if kind == "put":
            number += 1
            waiting[f"r{number}"] = (argument, number)
            shelf.put(f"r{number}", f"item r{number}", argument)
        elif kind == "take":
            wanted = sorted(waiting, key=waiting.__getitem__)[:argument]
            taken = list(shelf.take(argument, now + HELD_S))
            assert taken == [(ref, f"item {ref}") for ref in wanted]
            for ref in wanted:
                del waiting[ref]
                given_out[ref] = now + HELD_S
        elif kind == "commit":
            ref = f"r{argument}"
            held = ref in waiting or ref in given_out
            assert (shelf.remove(ref) is not None) == held
            waiting.pop(ref, None)
            given_out.pop(ref, None)
        else:
            now += argument
            late = {ref for ref, due in given_out.items() if due <= now}
            assert sorted(shelf.overdue(now)) == sorted(f"item {ref}" for ref in late)
            for ref in late:
                del given_out[ref]
        assert (shelf.waiting, shelf.given) == (len(waiting), len(given_out))


def test_what_was_committed_is_remembered_within_bounds() -> None:
    shelf: Shelf[str] = Shelf()
    for number in range(COMMITTED_KEPT + 1):
        shelf.note_committed(f"r{number}")
    assert not shelf.was_committed("r0")
    assert shelf.was_committed("r1")
    assert shelf.was_committed(f"r{COMMITTED_KEPT}")
