"""The breaker and the limiter by properties: the clock is a number the test gives."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from connectors.runtime.partner.limiter import Limiter

STEPS = st.lists(
    st.tuples(st.booleans(), st.floats(min_value=0, max_value=100)), min_size=1, max_size=60
)


@given(STEPS)
def test_a_success_always_closes_and_a_rest_is_never_too_long(
    steps: list[tuple[bool, float]],
) -> None:
    settings = BreakerSettings(failures_max=3, open_s=1.0, open_max_s=10.0)
    breaker, now = Breaker(settings), 0.0
    for good, passed in steps:
        now += passed
        if good:
            breaker.succeeded()
            assert breaker.closed
        else:
            breaker.failed(now)
        assert 0 <= breaker.wait_s(now) <= settings.open_max_s
        assert breaker.wait_s(now + settings.open_max_s) == 0
        assert breaker.closed or breaker.failures >= settings.failures_max


def test_it_opens_after_so_many_failures_and_rests_twice_as_long_after_each_probe() -> None:
    breaker = Breaker(BreakerSettings(failures_max=2, open_s=1.0, open_max_s=3.0))
    breaker.failed(0.0)
    assert breaker.closed
    breaker.failed(0.0)
    assert not breaker.closed
    assert breaker.wait_s(0.0) == 1.0
    breaker.failed(0.5)  # the answer of a request sent before it opened
    assert breaker.wait_s(0.5) == 0.5
    breaker.failed(1.0)
    assert breaker.wait_s(1.0) == 2.0
    breaker.failed(3.0)
    assert breaker.wait_s(3.0) == 3.0
    breaker.succeeded()
    breaker.failed(6.0)
    assert breaker.closed


@given(st.lists(st.tuples(st.sampled_from(("ask", "good", "bad", "given up")),
                          st.floats(min_value=0, max_value=5)), max_size=60))  # fmt: skip
def test_of_an_open_breaker_one_probe_goes_and_none_is_waited_for_for_ever(
    steps: list[tuple[str, float]],
) -> None:
    within_s = 3.0
    breaker, now = Breaker(BreakerSettings(failures_max=1, open_s=1.0, open_max_s=4.0)), 0.0
    probe_at: float | None = None
    for word, passed in steps:
        now += passed
        if word == "good":
            breaker.succeeded()
            probe_at = None
        elif word == "bad":
            breaker.failed(now)
            if breaker.state(now) == "open":  # else it came of a request before the rest
                probe_at = None
        elif word == "given up":
            breaker.released()
            probe_at = None
        else:
            state, wait_s = breaker.state(now), breaker.admit(now, within_s)
            assert (state == "closed") <= (wait_s == 0)
            assert (state == "open") <= (wait_s > 0)
            if state == "half_open":
                assert (wait_s > 0) == (probe_at is not None and now < probe_at + within_s)
                probe_at = now if wait_s == 0 else probe_at
        assert breaker.wait_s(now + within_s + 4.0) == 0


@given(
    st.floats(min_value=0.1, max_value=100),
    st.integers(min_value=1, max_value=20),
    st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=100),
)
def test_never_more_than_the_burst_and_the_rate_in_any_window(
    per_s: float, burst: int, gaps: list[float]
) -> None:
    limiter, now = Limiter(per_s, burst), 0.0
    moments: list[float] = []
    for gap in gaps:
        now += gap
        moments.append(now + limiter.take(now))
    assert moments == sorted(moments)
    for start in range(len(moments)):
        for end in range(start, len(moments)):
            allowed = burst + (moments[end] - moments[start]) * per_s
            assert end - start + 1 <= allowed + 1e-6 * (end + 1)


def test_no_rate_means_no_wait() -> None:
    limiter = Limiter(0.0)
    assert [limiter.take(0.0) for _ in range(1000)] == [0.0] * 1000
