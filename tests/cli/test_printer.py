"""Lines are written in their order, at once, and never hold up the event loop."""

from __future__ import annotations

import io
import os

import pytest
import trio

from wsclient.cli._printer import ROOM, Printer, Sink


@pytest.fixture
def pipe():
    """Both ends of a pipe; the writing one as Python would have it as a standard stream."""
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as out, open(writer, "w", encoding="utf-8") as stream:
        yield out, stream


async def test_each_line_is_there_at_once(pipe, nursery):
    out, stream = pipe
    printer = Printer(stream, None)
    nursery.start_soon(printer.run)
    printer.print("one")
    await printer.wait_written()

    assert b"one" + os.linesep.encode() == out.read(100)

    printer.print("two")
    printer.print("é \udc80")
    await printer.wait_written()

    assert f"two{os.linesep}é \\udc80{os.linesep}".encode() == out.read(100)


async def test_both_streams_keep_the_order_of_what_happened(pipe, nursery):
    out, stream = pipe
    printer = Printer(stream, stream)
    for number in range(100):
        (printer.print if number % 3 else printer.tell)(str(number))
    nursery.start_soon(printer.run)
    await printer.wait_written()

    assert [str(number) for number in range(100)] == out.read(10_000).decode().split()


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", b"\\xe9 \\u2026"), ("latin-1", b"\xe9 \\u2026")]
)
def test_what_an_encoding_lacks_is_escaped(tmp_path, encoding, expected):
    path = tmp_path / "out"
    with path.open("w", encoding=encoding) as stream:
        Sink(stream).write("é …\n")

    assert expected == path.read_bytes().rstrip()


def test_what_python_has_buffered_goes_first(tmp_path):
    path = tmp_path / "out"
    with path.open("w") as stream:
        stream.write("before\n")
        Sink(stream).write("after\n")

    assert ["before", "after"] == path.read_text().split()


def test_a_stream_in_memory_works_too():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Sink(stream).write("hello\n")

    assert "hello" == stream.buffer.getvalue().decode().rstrip()


async def test_a_slow_reader_makes_whoever_prints_wait_and_nobody_else(pipe, nursery):
    out, stream = pipe
    printer = Printer(stream, None)
    nursery.start_soon(printer.run)
    line = "x" * 1000
    with trio.move_on_after(0.2) as blocked:
        while True:
            printer.print(line)
            await printer.wait_room()
            await trio.lowlevel.checkpoint()

    # The loop ran on, and what waits is bounded.
    assert blocked.cancelled_caught
    assert printer._size < ROOM + len(line)

    # Without blocking: when everything was read, the printer may not know yet that it is done.
    os.set_blocking(out.fileno(), False)
    with trio.fail_after(10):
        while printer._size or printer._is_writing:
            out.read(65536)
            await trio.sleep(0.001)
        await printer.wait_room()


async def test_a_broken_pipe_is_noticed_and_no_error(pipe, nursery):
    out, stream = pipe
    printer = Printer(stream, None)
    nursery.start_soon(printer.run)
    out.close()
    printer.print("to nobody")

    assert isinstance(await printer.wait_failed(), BrokenPipeError)

    printer.print("again")
    await printer.wait_written()


async def test_nobody_who_reads_the_story_is_no_reason_to_end(pipe, nursery, tmp_path):
    out, stream = pipe
    path = tmp_path / "out"
    with path.open("w") as messages:
        printer = Printer(messages, stream)
        nursery.start_soon(printer.run)
        out.close()
        printer.tell("to nobody")
        printer.print("to somebody")
        await printer.wait_written()
        with trio.move_on_after(0.01) as waiting:
            await printer.wait_failed()

    assert waiting.cancelled_caught
    assert "to somebody" == path.read_text().strip()


async def test_a_closed_stream_swallows_everything(nursery):
    printer = Printer(None, None)
    nursery.start_soon(printer.run)
    printer.print("nothing")
    printer.tell("nothing")
    await printer.wait_written()


@pytest.mark.skipif(os.name == "nt", reason="pipes are different there")
def test_a_full_stream_that_does_not_block_is_a_failure(pipe):
    _, stream = pipe
    os.set_blocking(stream.fileno(), False)
    sink = Sink(stream)
    sink.write("x" * 1_000_000)

    assert isinstance(sink.failure, BlockingIOError)
