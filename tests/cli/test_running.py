"""A command ends by itself, by a signal, or when nobody reads what it prints."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from wsclient.cli._printer import Printer
from wsclient.cli._running import run

# These are not coroutines: they run trio themselves.


@pytest.fixture
def printer(tmp_path):
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        yield Printer(out, err)


@pytest.fixture
def printed(tmp_path):
    return lambda: ((tmp_path / "out").read_text(), (tmp_path / "err").read_text())


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_that_is_done_gives_the_status(printer, printed, status):
    async def command():
        printer.print("last words")
        return status

    assert status == run(command, printer)
    assert ("last words\n", "") == printed()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_a_signal_ends_it_and_lets_it_clean_up(printer, printed, number, status):
    async def command():
        try:
            signal.raise_signal(number)
            await trio.sleep_forever()
        finally:
            printer.print("cleaned up")

    assert status == run(command, printer)
    assert ("cleaned up\n", "") == printed()


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_a_second_ctrl_c_on_the_way_out_is_no_traceback(printer):
    async def command():
        try:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
        finally:
            signal.raise_signal(signal.SIGINT)

    assert 130 == run(command, printer)


def test_an_interrupt_before_anything_has_begun_is_no_traceback(printer, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupted)

    assert 130 == run(trio.sleep_forever, printer)


def test_an_interrupt_before_we_listen_for_it_is_no_traceback_either(printer, printed):
    # trio raises it where the first task waits.
    async def command():
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    assert 130 == run(command, printer)


def test_what_is_raised_beside_an_interrupt_is_raised(printer):
    async def command():
        raise BaseExceptionGroup("both", [KeyboardInterrupt(), ZeroDivisionError("bang")])

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        run(command, printer)


def test_a_reader_that_has_gone_ends_it_with_status_0(tmp_path, printed):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out, (tmp_path / "err").open("w") as err:
        printer = Printer(out, err)
        (tmp_path / "out").touch()

        async def command():
            printer.print("to nobody")
            await trio.sleep_forever()

        assert 0 == run(command, printer)

    assert ("", "") == printed()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
def test_a_full_disk_is_one_line_and_status_1(tmp_path, printed):
    with open("/dev/full", "w") as out, (tmp_path / "err").open("w") as err:
        printer = Printer(out, err)
        (tmp_path / "out").touch()

        async def command():
            printer.print("too much")
            await trio.sleep_forever()

        assert 1 == run(command, printer)

    _, story = printed()

    assert "wsclient: cannot write to stdout: No space left on device\n" == story


@pytest.mark.skipif(os.name == "nt", reason="pipes are different there")
def test_a_reader_that_is_stuck_does_not_keep_it_from_ending(tmp_path):
    reader, writer = os.pipe()
    with open(reader, "rb") as stuck, open(writer, "w") as out, (tmp_path / "err").open("w") as err:
        printer = Printer(out, err)

        async def command():
            printer.print("x" * 1_000_000)
            return 0

        assert 0 == run(command, printer)
        # The thread that was left behind would write to whatever gets this descriptor next.
        assert 1_000_001 == len(stuck.read(1_000_001))


def test_a_bug_is_not_hidden(printer):
    async def command():
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        run(command, printer)

    assert caught.group_contains(ZeroDivisionError)
