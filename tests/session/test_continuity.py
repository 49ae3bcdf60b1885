"""Whether something may be missing between two values."""

from __future__ import annotations

import attrs
import pytest

from wsclient import Gap
from wsclient.session._continuity import Continuity, Repeated, WentBack


def consecutive(before, after):
    return after == before + 1


def growing(before, after):
    return None


def interrupted(**changes):
    facts = {"after": 1, "before": 2, "since": 0.0, "until": 5.0, "reason": "it was cut"}
    return Gap(**{**facts, **changes})


def hole(reason):
    return interrupted(after=2, reason=reason)


def test_the_first_value_follows_nothing():
    assert Continuity(consecutive).follow(7, hole) is None


@pytest.mark.parametrize(
    ("is_next", "position", "expected"),
    [
        (consecutive, 6, None),
        (growing, 9, None),
        (consecutive, None, None),
    ],
)
def test_what_follows_position_5_on_one_connection(is_next, position, expected):
    assert expected == Continuity(is_next, last=5).follow(position, hole)


def test_positions_that_were_left_out_are_a_gap_between_the_two():
    gap = Continuity(consecutive, last=5).follow(9, hole)

    assert (gap.after_position, gap.before_position, gap.reason) == (
        5,
        9,
        "the server left positions out",
    )


def test_a_doubt_is_none_where_the_next_position_proves_that_nothing_is_missing():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())

    assert continuity.follow(6, hole) is None


@pytest.mark.parametrize(("is_next", "position"), [(consecutive, 8), (growing, 6)])
def test_a_doubt_that_no_position_removes_is_told_with_the_positions_around_it(is_next, position):
    continuity = Continuity(is_next, last=5)
    continuity.raise_doubt(interrupted())

    gap = continuity.follow(position, hole)

    assert interrupted(after_position=5, before_position=position) == gap


def test_a_value_without_a_position_cannot_remove_a_doubt():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())

    assert interrupted(after_position=5) == continuity.follow(None, hole)


def test_two_doubts_in_a_row_are_one_that_begins_with_the_first():
    continuity = Continuity(growing, last=5)
    continuity.raise_doubt(interrupted(reason="first"))
    continuity.raise_doubt(interrupted(after=2, before=4, since=6.0, until=9.0, reason="second"))

    gap = continuity.follow(6, hole)

    assert (gap.after, gap.before, gap.since, gap.until, gap.reason) == (1, 4, 0.0, 9.0, "first")


@pytest.mark.parametrize("position", [5, 4])
def test_what_cannot_be_a_repetition_is_a_stream_that_has_gone_back(position):
    continuity = Continuity(consecutive, last=5)

    verdict = continuity.follow(position, hole)
    continuity.move(position)

    assert isinstance(verdict, WentBack)
    assert verdict.gap == interrupted(
        after=2, reason="the stream has gone back", after_position=5, before_position=position
    )
    assert continuity.follow(position + 1, hole) is None


@pytest.mark.parametrize("position", [100, 1])
@pytest.mark.parametrize("is_settled", [False, True])
def test_behind_a_loss_a_position_that_is_not_greater_is_a_stream_that_has_gone_back(
    position, is_settled
):
    continuity = Continuity(consecutive, last=100)
    continuity.raise_doubt(interrupted())
    if is_settled:
        continuity.settle()

    verdict = continuity.follow(position, hole)

    assert isinstance(verdict, WentBack)
    gap = hole("the stream has gone back")
    if not is_settled:
        # It tells of the loss as well.
        gap = interrupted(reason="it was cut; the stream has gone back")
    assert verdict.gap == attrs.evolve(gap, after_position=100, before_position=position)


def test_what_was_brought_may_come_again_live_and_what_was_before_may_not():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())
    assert [None] * 3 == [continuity.recover(position) for position in (6, 7, 8)]

    assert continuity.follow(7, hole) == Repeated()
    assert isinstance(continuity.follow(5, hole), WentBack)
    assert continuity.follow(9, hole) is None


def test_old_values_are_expected_until_the_next_new_one():
    continuity = Continuity(consecutive, last=5)
    continuity.expect_repeats()

    assert continuity.follow(3, hole) == Repeated()
    assert continuity.follow(6, hole) is None
    continuity.move(6)
    assert isinstance(continuity.follow(6, hole), WentBack)


def test_where_values_may_come_again_at_any_time_they_are_repetitions():
    continuity = Continuity(consecutive, repeats=True, last=5)
    continuity.raise_doubt(interrupted())

    assert continuity.follow(3, hole) == Repeated()
    assert continuity.follow(6, hole) is None
    continuity.move(6)
    assert continuity.follow(6, hole) == Repeated()


def test_a_value_of_the_past_is_new_if_its_position_is():
    continuity = Continuity(consecutive, last=5)

    assert continuity.recover(6) is None
    assert continuity.recover(6) == Repeated()
    assert continuity.recover(None) is None
    assert continuity.last == 6


def test_s6_2_what_the_past_leaves_out_is_a_gap_where_it_is_missing():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted(before_position=20))

    assert interrupted(after_position=5, before_position=8) == continuity.recover(8)
    assert continuity.recover(9) is None
    # What is asked for anew is asked for behind it.
    assert interrupted(after_position=9) == continuity.doubt


def test_two_connections_repeat_each_other_and_nothing_from_before_they_began():
    continuity = Continuity(consecutive, last=5)
    continuity.begin(overlaps=False, resumes=False)
    continuity.raise_doubt(interrupted())
    continuity.widen(resumes=False)
    assert isinstance(continuity.follow(5, hole), WentBack)
    assert continuity.follow(6, hole) is None
    continuity.move(6)

    assert continuity.follow(6, hole) == Repeated()
    assert isinstance(continuity.follow(4, hole), WentBack)
    # It counts anew, on both.
    assert isinstance(continuity.follow(1, hole), WentBack)
    continuity.move(1)
    assert continuity.follow(1, hole) == Repeated()


@pytest.mark.parametrize("who", ["first", "second"])
def test_a_connection_that_resumes_may_repeat_what_came_before_it(who):
    continuity = Continuity(consecutive, last=5)
    continuity.begin(overlaps=False, resumes=who == "first")
    continuity.widen(resumes=who == "second")

    assert continuity.follow(5, hole) == Repeated()


def test_a_connection_that_overlaps_with_the_last_repeats_what_that_one_has_brought():
    continuity = Continuity(consecutive, last=5)
    continuity.begin(overlaps=True, resumes=False)
    continuity.raise_doubt(interrupted())

    assert continuity.follow(4, hole) == Repeated()


def test_the_past_may_be_the_first_that_is_known():
    continuity = Continuity(consecutive)

    assert continuity.recover(3) is None
    assert continuity.last == 3


def test_what_was_brought_may_come_again_live_also_behind_a_second_doubt():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())
    assert continuity.recover(6) is None
    continuity.raise_doubt(interrupted())

    assert continuity.follow(6, hole) == Repeated()


@pytest.mark.parametrize(
    ("how", "verdict"),
    [({"waited": True}, Repeated), ({"waited": False}, WentBack), ({}, WentBack)],
)
def test_what_was_brought_may_come_again_behind_a_loss_that_has_waited_for_it(how, verdict):
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())
    assert continuity.recover(6) is None
    continuity.settle()

    continuity.raise_doubt(interrupted(), **how)

    assert isinstance(continuity.follow(6, hole), verdict)


def test_a_value_without_a_position_leaves_the_last_one_as_it_is():
    continuity = Continuity(consecutive, last=5)
    continuity.move(None)

    assert continuity.last == 5


def test_a_loss_that_has_waited_for_what_may_come_again_ends_that():
    continuity = Continuity(consecutive, last=5)
    continuity.expect_repeats()

    continuity.raise_doubt(interrupted(), waited=True)

    assert isinstance(continuity.follow(3, hole), WentBack)


def test_behind_a_new_value_a_loss_that_has_waited_is_a_loss_like_every_other():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())
    continuity.settle()
    continuity.move(8)

    continuity.raise_doubt(interrupted(), waited=True)
    assert continuity.recover(9) is None

    assert continuity.follow(9, hole) == Repeated()
    assert isinstance(continuity.follow(8, hole), WentBack)


def test_where_a_doubtful_stream_goes_on_where_it_was_old_values_may_come_again():
    continuity = Continuity(consecutive, last=5)
    continuity.raise_doubt(interrupted())
    continuity.expect_repeats()

    assert continuity.follow(5, hole) == Repeated()


def test_a_doubt_ends_with_the_first_value_behind_it():
    continuity = Continuity(growing, last=5)
    continuity.raise_doubt(interrupted())
    assert continuity.follow(6, hole) is not None
    continuity.move(6)

    assert continuity.follow(7, hole) is None
