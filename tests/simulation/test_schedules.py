"""What wsclient promises holds, whatever server, path and user do (S8: I1 to I13)."""

import pytest

from wsclient.testing._simulation import simulate

SCHEDULES = 500
MESSAGES = 50
CHUNK = 50


@pytest.mark.parametrize("first", range(1, SCHEDULES + 1, CHUNK))
def test_s8_every_invariant_holds_in_every_schedule(first):
    for seed in range(first, first + CHUNK):
        run = simulate(seed, MESSAGES)

        assert () == run.breaches, run.trace
