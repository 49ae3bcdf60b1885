"""Schedules are drawn from a seed, and differ."""

from wsclient.testing._disk import Failing
from wsclient.testing._proxy import Conditions
from wsclient.testing._schedule import Cue, Leave, Strike, make_schedule


def test_schedule_is_the_seeds():
    assert make_schedule(5, 20) == make_schedule(5, 20)
    assert make_schedule(5, 20) != make_schedule(6, 20)
    assert [*range(1, 21)] == [send.key for send in make_schedule(5, 20).sends]


def test_schedules_are_of_all_kinds():
    schedules = [make_schedule(seed, 5) for seed in range(300)]

    assert set(Leave) == {schedule.leave for schedule in schedules}
    assert 5 < sum(schedule.is_flapping for schedule in schedules) < 50
    strikes = {change.what for schedule in schedules for change in schedule.changes}
    assert set(Strike) == {strike for strike in strikes if isinstance(strike, Strike)}
    assert 10 < sum(isinstance(strike, Conditions) for strike in strikes)
    overlaps = [schedule.overlap for schedule in schedules if schedule.overlap is not None]
    assert 50 < len(overlaps) < 150
    assert {1, 2} == {overlap.redundancy for overlap in overlaps}
    assert 10 < sum(overlap.rotate_every is not None for overlap in overlaps)
    disks = [schedule.disk for schedule in schedules if schedule.disk is not None]
    assert 50 < len(disks) < 150
    spells = [spell for disk in disks for spell in disk.spells]
    assert {None, *Failing} == {spell.failing for spell in spells}
    assert 3 < sum(spell.hangs for spell in spells)
    assert all(spell.at <= spell.until for spell in spells)
    endings = [ending for disk in disks for ending in disk.endings]
    assert {None, *Leave} == {ending.leave for ending in endings}
    assert set(Cue) == {ending.cue for ending in endings if ending.leave is None}
    assert 40 < len({fault for schedule in schedules for fault in schedule.faults})


def test_schedule_is_printed_line_by_line():
    schedule = make_schedule(5, 2)
    lines = list(schedule.lines())

    assert "  seed = 5" == lines[0]
    assert f"  faults = {schedule.faults!r}" in lines
    assert 2 == sum(line.startswith("    Send(key=") for line in lines)
