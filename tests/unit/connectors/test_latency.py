"""The estimator of latencies by properties: the clock is a number the test gives."""

import math

from hypothesis import given
from hypothesis import strategies as st

from connectors.runtime.partner.latency import BOUNDS_MS, SLICE_S, SLICES, Latency, RecentLatency

MS = st.floats(min_value=0, max_value=BOUNDS_MS[-1])
TIMES = st.lists(st.tuples(MS, st.floats(min_value=0, max_value=100)), min_size=1, max_size=60)


@given(st.lists(MS, min_size=1, max_size=200), st.sampled_from((0.5, 0.9, 0.99, 1.0)))
def test_a_quantile_is_a_bound_and_the_nearest_one(times: list[float], share: float) -> None:
    latency = Latency()
    for ms in times:
        latency.add(ms)
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    bound = latency.quantile_ms(share)
    assert bound is not None
    assert exact <= bound
    below = [one for one in BOUNDS_MS if one < bound]
    assert not below or exact > below[-1]
    assert latency.count == len(times)


def test_nothing_is_known_of_nothing_and_of_what_is_beyond() -> None:
    latency = Latency()
    assert latency.quantile_ms(0.5) is None
    latency.add(BOUNDS_MS[-1] + 1)
    assert latency.quantile_ms(0.5) is None


@given(TIMES, st.floats(min_value=0, max_value=1e6))
def test_what_is_over_a_minute_old_counts_no_more(
    times: list[tuple[float, float]], start: float
) -> None:
    recent, now = RecentLatency(), start
    seen: list[tuple[float, float]] = []
    for ms, passed in times:
        now += passed
        recent.add(ms, now)
        seen.append((ms, now))
    slice_at = now // SLICE_S
    fresh = Latency()
    for ms, at in seen:
        if at // SLICE_S > slice_at - SLICES:
            fresh.add(ms)
    assert recent.quantile_ms(0.99, now) == fresh.quantile_ms(0.99)
    assert recent.quantile_ms(0.5, now + SLICES * SLICE_S) is None
