"""How long pings and pongs take."""

from __future__ import annotations

import pytest

from wsclient.connection._round_trips import WINDOW, RoundTrips


def test_s5_1_one_round_trip_is_all_there_is():
    trips = RoundTrips(0.5)

    assert (0.5, 0.5, 0.5, 0.5) == (trips.last, trips.smoothed, trips.minimum, trips.percentile(95))


def test_s5_1_the_last_the_smoothed_and_the_shortest_are_known():
    trips = RoundTrips(0.8)
    trips.add(0.4)
    trips.add(1.6)

    assert 1.6 == trips.last
    assert 0.4 == trips.minimum
    # RFC 6298: an eighth of the new one, seven of what was.
    assert pytest.approx(0.75 + (1.6 - 0.75) / 8) == trips.smoothed


@pytest.mark.parametrize("hundredths", [50, 95, 99, 100])
def test_s5_1_of_a_hundred_so_many_took_no_longer_than_the_percentile(hundredths):
    trips = RoundTrips(1)
    for seconds in range(2, 101):
        trips.add(seconds)

    assert (hundredths, 1) == (trips.percentile(hundredths), trips.minimum)


@pytest.mark.parametrize(
    ("count", "p50", "p95", "p99"), [(2, 1, 2, 2), (3, 2, 3, 3), (20, 10, 19, 20)]
)
def test_s5_1_a_percentile_of_few_is_one_of_them(count, p50, p95, p99):
    trips = RoundTrips(1)
    for seconds in range(2, count + 1):
        trips.add(seconds)

    assert [p50, p95, p99] == [trips.percentile(hundredths) for hundredths in (50, 95, 99)]


def test_s5_1_the_percentile_is_of_the_last_hundred():
    trips = RoundTrips(1000)
    for _ in range(WINDOW):
        trips.add(1)

    assert (1, 1) == (trips.percentile(95), trips.minimum)
