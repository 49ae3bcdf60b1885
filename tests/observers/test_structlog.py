"""Events become log entries: once each, where the user wants them, and without a secret."""

from __future__ import annotations

import copy
import io
import json
import logging
import traceback

import attrs
import pytest
import structlog
import tenacity
import trio

import wsclient
from wsclient import events
from wsclient.events import ChannelState, Event, Gap
from wsclient.observers import LoggingObserver
from wsclient.testing import (
    BAD_ACCEPT,
    GARBAGE_ANSWER,
    NONE,
    REFUSE,
    REJECT_404,
    REJECT_503,
    RESET_AFTER_OPEN,
    EventRecorder,
    Fault,
    FaultServer,
    memory_network,
)

PLACE = {"channel": "feed", "endpoint": "ws://server.test", "attempt": 2}
GAP = Gap(after=1, before=2, since=1.0, until=3.25, reason="1006")
ONE_OF_EACH = [
    events.StateChanged(
        channel="feed", previous=ChannelState.CONNECTING, state=ChannelState.READY, cause="c"
    ),
    events.ConnectionAttempted(**PLACE),
    events.ConnectionFailed(**PLACE, cause="refused", duration=1.23456),
    events.ConnectionOpened(**PLACE, epoch=3, duration=0.5, subprotocol="chat"),
    events.ConnectionReady(**PLACE, epoch=3, outage=None),
    events.ConnectionLost(**PLACE, epoch=3, cause="closed", code=1001, duration=9.0, ready=True),
    events.RetryScheduled(**PLACE, delay=1.5, rule="close code"),
    events.GapDetected(channel="feed", gap=GAP),
    events.InboxOverflowed(channel="feed", dropped=3),
    events.OutboxOverflowed(channel="feed", dropped=3),
    events.FencesLifted(channel="feed", epoch=3, messages=2),
    events.MessageQuarantined(channel="feed", id="5f", attempts=4, cause="c"),
    events.OutboxRestored(channel="feed", messages=3, lost_unknown=1, expired=0),
    events.SubscriptionsRestored(
        channel="feed", epoch=2, subscriptions=3, resumed=2, delayed=1, duration=0.5
    ),
    events.SubscriptionRefused(
        channel="feed", epoch=2, subscription="trades", error=ValueError("no"), retry_in=1.0
    ),
    events.OutboxFailed(channel="feed", error=ValueError("x")),
    events.OutboxRecovered(channel="feed"),
    events.JournalFailed(channel="feed", cause="the disk is full"),
    events.JournalRecovered(channel="feed"),
    events.ChannelClosed(channel="feed", cancelled=1, lost_unknown=2),
    events.ChannelGaveUp(channel="feed", reason="no", cancelled=1, lost_unknown=2),
    events.HandlerFailed(channel="feed", handler="h", subject="s", error=LookupError("x")),
    events.MessageUndecoded(channel="feed", size=3, error=ValueError("x")),
    events.ObserverFailed(channel="feed", observer="o", error=LookupError("x")),
    events.ConnectionLeft(**PLACE, epoch=3, reason="slow", duration=9.0),
    events.PeerStoppedReading(**PLACE, epoch=3),
    events.LocalStallDetected(**PLACE, epoch=3, late=2.5),
    events.SuspendDetected(channel="feed", duration=3600.0),
]
LEVELS = {
    "StateChanged": "debug",
    "ConnectionAttempted": "debug",
    "ConnectionOpened": "debug",
    "ConnectionReady": "info",
    "ConnectionLeft": "info",
    "RetryScheduled": "info",
    "ChannelClosed": "info",
    "SuspendDetected": "info",
    "ConnectionFailed": "warning",
    "ConnectionLost": "warning",
    "PeerStoppedReading": "warning",
    "LocalStallDetected": "warning",
    "GapDetected": "warning",
    "InboxOverflowed": "warning",
    "FencesLifted": "warning",
    "OutboxOverflowed": "warning",
    "MessageUndecoded": "warning",
    "MessageQuarantined": "error",
    "OutboxRestored": "info",
    "SubscriptionsRestored": "info",
    "SubscriptionRefused": "warning",
    "OutboxFailed": "error",
    "OutboxRecovered": "info",
    "JournalFailed": "error",
    "JournalRecovered": "info",
    "ObserverFailed": "error",
    "HandlerFailed": "error",
    "ChannelGaveUp": "error",
}


@pytest.fixture(autouse=True)
def _unconfigured():
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def handler():
    """What the user's handler of the standard library hears, from DEBUG on."""

    class Keeping(logging.Handler):
        def __init__(self):
            super().__init__()
            self.records = []

        def emit(self, record):
            self.records.append(record)

    logger, handler = logging.getLogger("wsclient"), Keeping()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def configure_structlog(*processors, level=0):
    out = io.StringIO()
    structlog.configure(
        processors=list(processors),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    return out


# --- where entries go ---------------------------------------------------------------------------


def test_a_library_prints_nothing_by_itself(capfd, monkeypatch):
    # As in a program that has configured nothing: pytest's own handlers are out of the way.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for event in ONE_OF_EACH:
        LoggingObserver()(event)

    assert ("", "") == tuple(capfd.readouterr())


def test_the_standard_librarys_configuration_is_obeyed(handler):
    for event in ONE_OF_EACH:
        LoggingObserver()(event)

    assert len(ONE_OF_EACH) == len(handler.records)
    assert {"wsclient.session"} == {record.name for record in handler.records}
    assert [LEVELS[type(event).__name__].upper() for event in ONE_OF_EACH] == [
        record.levelname for record in handler.records
    ]


def test_the_standard_librarys_levels_are_obeyed(handler):
    logging.getLogger("wsclient").setLevel("WARNING")
    for event in ONE_OF_EACH:
        LoggingObserver()(event)

    assert {"WARNING", "ERROR"} == {record.levelname for record in handler.records}


def test_an_entry_has_its_values_in_its_text_and_as_attributes(handler):
    LoggingObserver()(
        events.ConnectionLost(
            **PLACE, epoch=3, cause="closed: 'bye'", code=1001, duration=9.0, ready=True
        )
    )
    [record] = handler.records

    assert (
        "connection lost channel='feed' endpoint='ws://server.test' attempt=2 epoch=3"
        " cause=\"closed: 'bye'\" code=1001 duration=9.0 ready=True kind='closed'"
    ) == record.getMessage()
    assert ("feed", "ws://server.test", 2, 3, 1001, True) == (
        record.channel,
        record.endpoint,
        record.attempt,
        record.epoch,
        record.code,
        record.ready,
    )


def test_a_record_can_be_formatted_by_any_formatter(handler):
    for event in ONE_OF_EACH:
        LoggingObserver()(event)
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s %(channel)s")
    lines = [formatter.format(record) for record in handler.records]

    assert all(line.splitlines()[0].endswith("feed") for line in lines)


def test_an_error_comes_with_its_traceback(handler):
    try:
        raise LookupError("mine")
    except LookupError as error:
        event = events.HandlerFailed(channel="feed", handler="h", subject="s", error=error)
    LoggingObserver()(event)
    [record] = handler.records

    assert event.error is record.exc_info[1]
    assert "LookupError: mine" in logging.Formatter().format(record)
    assert "error=" not in record.getMessage()


def test_a_configured_structlog_is_used_as_it_is(handler, capfd):
    entries = []

    def keep(logger, name, entry):
        entries.append((name, dict(entry)))
        raise structlog.DropEvent

    configure_structlog(keep)
    for event in ONE_OF_EACH:
        LoggingObserver()(event)

    assert [] == handler.records
    assert ("", "") == tuple(capfd.readouterr())
    assert [LEVELS[type(event).__name__] for event in ONE_OF_EACH] == [name for name, _ in entries]
    assert {
        "event": "connection lost",
        "channel": "feed",
        "endpoint": "ws://server.test",
        "attempt": 2,
        "epoch": 3,
        "cause": "closed",
        "code": 1001,
        "duration": 9.0,
        "ready": True,
        "kind": "closed",
    } == entries[5][1]


def test_structlogs_levels_are_obeyed():
    out = configure_structlog(
        structlog.processors.JSONRenderer(default=repr), level=logging.WARNING
    )
    for event in ONE_OF_EACH:
        LoggingObserver()(event)
    levels = [LEVELS[type(event).__name__] for event in ONE_OF_EACH]

    assert len(out.getvalue().splitlines()) == levels.count("warning") + levels.count("error")


def test_structlog_may_be_configured_after_the_observer_was_made():
    observer = LoggingObserver()
    out = configure_structlog(structlog.processors.JSONRenderer())
    observer(ONE_OF_EACH[1])

    assert "connection attempted" == json.loads(out.getvalue())["event"]


def test_a_logger_of_ones_own_is_used():
    entries = []

    class Logger:
        def __getattr__(self, level):
            return lambda event, **values: entries.append((level, event, values))

    LoggingObserver(Logger())(ONE_OF_EACH[6])

    assert [("info", "retry scheduled", {**PLACE, "delay": 1.5, "rule": "close code"})] == entries


def test_a_structlog_logger_of_ones_own_keeps_what_is_bound_to_it():
    out = configure_structlog(structlog.processors.JSONRenderer())
    LoggingObserver(structlog.get_logger().bind(service="trader"))(ONE_OF_EACH[1])

    assert "trader" == json.loads(out.getvalue())["service"]


def test_context_variables_of_structlog_are_merged(handler):
    structlog.contextvars.bind_contextvars(request="r-1")
    LoggingObserver()(ONE_OF_EACH[1])

    assert "r-1" == handler.records[0].request
    assert "request='r-1'" in handler.records[0].getMessage()


@pytest.mark.parametrize("name", ["name", "message", "args", "module", "asctime", "exc_text"])
def test_a_context_variable_that_is_called_as_a_records_own_does_no_harm(handler, name):
    structlog.contextvars.bind_contextvars(**{name: "mine"})
    LoggingObserver()(ONE_OF_EACH[1])
    [record] = handler.records

    assert f"{name}='mine'" in record.getMessage()
    assert "wsclient.session" == record.name


# --- what is in them ----------------------------------------------------------------------------


def test_every_event_has_a_name_and_a_level(handler):
    kinds = {
        kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)
    } - {Event, events.ConnectionEvent}

    assert kinds == {type(event) for event in ONE_OF_EACH}
    assert set(LEVELS) == {kind.__name__ for kind in kinds}


def test_an_event_of_a_kind_to_come_is_logged_all_the_same(handler):
    @attrs.frozen(kw_only=True)
    class SomethingNew(Event):
        what: str

    LoggingObserver()(SomethingNew(channel="feed", what="new"))

    assert ["SomethingNew channel='feed' what='new'"] == [
        record.getMessage() for record in handler.records
    ]
    assert ["INFO"] == [record.levelname for record in handler.records]


@pytest.mark.parametrize(
    ("event", "values"),
    [
        (ONE_OF_EACH[0], {"previous": "connecting", "state": "ready", "cause": "c"}),
        (ONE_OF_EACH[2], {"duration": 1.235}),
        (ONE_OF_EACH[7], {"after": 1, "before": 2, "since": 1.0, "until": 3.25, "reason": "1006"}),
    ],
)
def test_values_are_such_as_any_renderer_knows(event, values):
    out = configure_structlog(structlog.processors.JSONRenderer())
    LoggingObserver()(event)
    entry = json.loads(out.getvalue())

    assert values == {name: entry[name] for name in values}
    assert {"event", "channel"} < set(entry)
    # What is not known is left out.
    assert None not in entry.values()


def test_what_an_event_does_not_show_is_not_shown_here(handler):
    """Some services take a token for a subprotocol."""
    out = configure_structlog(structlog.processors.JSONRenderer())
    for subprotocol in ("secret", None):
        event = events.ConnectionOpened(**PLACE, epoch=3, duration=0.5, subprotocol=subprotocol)
        LoggingObserver()(event)
    entries = [json.loads(line) for line in out.getvalue().splitlines()]

    assert ["…", None] == [entry.get("subprotocol") for entry in entries]


async def test_each_fact_of_a_session_is_logged_once(autojump_clock, handler):
    recorder = EventRecorder()
    with memory_network() as network:
        story = [REFUSE, REJECT_503, RESET_AFTER_OPEN, Fault.close(1012, "restart", after=1), NONE]
        async with (
            FaultServer(story, network=network) as server,
            wsclient.open_channel(server.url, observers=[recorder, LoggingObserver()]) as channel,
        ):
            await recorder.wait_for(events.ConnectionReady, count=3)
            await channel.send("hello")
    names = ["".join(word.title() for word in record.msg_name) for record in named(handler)]

    assert recorder.names() == names
    lost = [record for record in handler.records if record.getMessage().startswith("connection l")]

    assert [("ws://server.test", 1, 3), ("ws://server.test", 2, 4)] == [
        (record.endpoint, record.epoch, record.attempt) for record in lost
    ]


async def test_an_idle_hour_logs_nothing(autojump_clock, handler):
    """Though pings are sent and answered, and a standby is kept."""
    with memory_network() as network:
        async with (
            FaultServer(network=network) as server,
            wsclient.open_channel(
                server.url, ready_timeout=10, dedupe=lambda message: None, redundancy=2
            ) as channel,
        ):
            await trio.sleep(60)
            heard = len(handler.records)
            await trio.sleep(3600)

            assert channel.has_standby
            assert None is not channel.statistics().latency
            assert [] == handler.records[heard:]


def test_an_outage_of_a_day_is_a_dozen_entries_and_not_thousands(handler):
    observer = LoggingObserver()
    place = {"channel": "feed", "endpoint": "ws://feed.test"}
    for attempt in range(1, 4001):
        cause = "refused" if attempt < 3000 else "HTTP 503"
        observer(events.ConnectionFailed(**place, attempt=attempt, cause=cause, duration=0.1))
        observer(events.RetryScheduled(**place, attempt=attempt, delay=20.0, rule="backoff"))
    observer(
        events.ConnectionReady(
            **place, attempt=4001, epoch=2, duration=0.1, outage=80_000.0, outage_attempts=4001
        )
    )
    observer(events.ConnectionFailed(**place, attempt=3, cause="HTTP 503", duration=0.1))
    shown = [record for record in handler.records if record.levelno > logging.DEBUG]

    # What fails for another reason is shown at once.
    doubled = [2**power for power in range(12)]
    failed = [record for record in shown if record.args[0] == "connection failed"]
    assert [*doubled, 3000, 3] == [record.attempt for record in failed]
    waited = [record.attempt for record in shown if record.args[0] == "retry scheduled"]
    assert doubled == waited
    # Nothing is silent.
    assert 8002 == len(handler.records)


async def test_an_outage_of_twenty_failures_is_summed_up_in_one_entry(autojump_clock, handler):
    recorder = EventRecorder()
    with memory_network() as network:
        story = [Fault.close(1012, after=60), *[REFUSE] * 15, *[REJECT_503] * 5, NONE]
        async with (
            FaultServer(story, network=network) as server,
            wsclient.open_channel(
                server.url, name="feed", observers=[LoggingObserver(), recorder]
            ) as channel,
        ):
            await recorder.wait_for(events.ConnectionReady, count=2)
            attempts = [outage.attempts for outage in channel.outages]
    summed = [record for record in handler.records if hasattr(record, "outage_attempts")]

    assert 20 == len(recorder.of(events.ConnectionFailed))
    assert ["connection ready"] == [record.args[0] for record in summed]
    assert ("feed", "ws://server.test", 21, 2) == (
        summed[0].channel,
        summed[0].endpoint,
        summed[0].outage_attempts,
        summed[0].epoch,
    )
    assert [21] == attempts
    assert round(recorder.of(events.ConnectionReady)[1].outage, 3) == summed[0].outage > 60


def named(handler):
    for record in handler.records:
        record.msg_name = record.args[0].split()
    return handler.records


# --- no secret ----------------------------------------------------------------------------------

CANARY = "c4n4ry"
URL = f"ws://{CANARY}user:{CANARY}pass@server.test/{CANARY}path?{CANARY}key={CANARY}value"
OPTIONS = wsclient.ConnectionOptions(
    subprotocols=["chat", f"{CANARY}-token"],
    extra_headers={"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY},
    redirects=1,
)
RENDERERS = {
    "json": [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=repr)],
    "key and value": [
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(),
    ],
    "logfmt": [structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()],
    "console": [structlog.dev.ConsoleRenderer(colors=False)],
    "console, plain": [
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    ],
}
STORIES = {
    "a rough life": [
        REFUSE,
        REJECT_503,
        Fault.reject(429, retry_after=1, headers={"Set-Cookie": f"session={CANARY}"}),
        RESET_AFTER_OPEN,
        Fault.close(1012, after=1),
        NONE,
    ],
    "refused": [Fault.reject(404, headers={"X-Echo": CANARY}, body=CANARY.encode())],
    "redirected": [Fault.reject(302, headers={"Location": f"wss://x.test/?{CANARY}"})],
    "redirected to nowhere": [Fault.reject(302, headers={"Location": f"ftp://x/{CANARY}"})],
    "no WebSocket server": [GARBAGE_ANSWER],
    "wrong answer": [BAD_ACCEPT],
    "bad credentials": [Fault.reject(401, body=CANARY.encode())],
}


async def give_url():
    return URL


async def give_headers():
    return {"X-Session": CANARY}


async def give_credentials(*, fresh):
    return f"Bearer {CANARY}"


async def give_bad_url():
    return f"http://{CANARY}.test/?{CANARY}"


async def give_bad_headers():
    return {"X-Session": f"{CANARY}\n"}


# By name: what the test itself holds would be shown as a local of its frames.
URLS = {
    "fixed": URL,
    "from a function": give_url,
    "bad": give_bad_url,
    "several": [give_url, URL],
}


async def live(story, url="fixed", **functions):
    """A session with failures; what is left of it: reprs, and the exceptions that came out."""
    recorder, seen = EventRecorder(), []

    def failing(event):
        # What it raises comes with the frames around it.
        if isinstance(event, (events.ConnectionFailed, events.ConnectionLost)):
            raise LookupError("an observer failed")

    with memory_network() as network:
        async with FaultServer(story, network=network, subprotocols=["chat"]):
            try:
                async with wsclient.open_channel(
                    URLS[url],
                    **functions,
                    connection=OPTIONS,
                    observers=[recorder, LoggingObserver(), failing],
                    ready_timeout=1000,
                ) as channel:
                    seen += [channel, channel.statistics(), channel.explain()]
                    await recorder.wait_for(events.ConnectionReady, count=3)
                    receipt = await channel.send("hello")
                    await receipt.wait()
                    seen += [channel.receive_channel, channel.send_channel, receipt]
                    seen += [channel.receive_channel.statistics(), channel._supervisor]
                    seen += [channel._settings, channel._supervisor.connection]
                    seen += [channel.explain(), channel.outages]
            except wsclient.WebSocketError as error:
                seen.append(error)
    return [*seen, *recorder.events]


def texts(thing):
    yield repr(thing)
    yield str(thing)
    if isinstance(thing, BaseException):
        for capture_locals in (False, True):
            shown = traceback.TracebackException.from_exception(
                thing, capture_locals=capture_locals
            )
            yield "".join(shown.format())
        context = None if thing.__suppress_context__ else thing.__context__
        for other in (thing.__cause__, context, *getattr(thing, "history", ())):
            if other is not None:
                yield from texts(other)


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("renderer", RENDERERS)
async def test_no_secret_is_in_any_entry_of_a_configured_structlog(
    autojump_clock, story, renderer, capfd
):
    out = configure_structlog(*RENDERERS[renderer])
    await live(STORIES[story])

    assert len(out.getvalue().splitlines()) > 4
    assert CANARY not in out.getvalue()
    assert ("", "") == tuple(capfd.readouterr())


@pytest.mark.parametrize("story", STORIES)
async def test_no_secret_is_in_any_record_of_the_standard_library(autojump_clock, story, handler):
    await live(STORIES[story])
    formatter = logging.Formatter()

    assert len(handler.records) > 4
    for record in handler.records:
        assert CANARY not in formatter.format(record)
        assert CANARY not in repr(vars(record))


@pytest.mark.parametrize("story", STORIES)
async def test_no_secret_is_in_any_repr_or_exception(autojump_clock, story):
    for thing in await live(STORIES[story]):
        for text in texts(thing):
            # Of the subprotocols a user may see the names: they are what he wrote there.
            assert CANARY not in text.replace(f"{CANARY}-token", "")


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("url", ["from a function", "bad", "several"])
@pytest.mark.parametrize("headers", [give_headers, give_bad_headers])
async def test_no_secret_that_a_function_gave_is_in_any_record_repr_or_exception(
    autojump_clock, story, url, headers, handler
):
    seen = await live(STORIES[story], url, headers=headers, credentials=give_credentials)
    formatter = logging.Formatter()

    assert len(handler.records) > 4
    for record in handler.records:
        assert CANARY not in formatter.format(record)
    for thing in seen:
        for text in texts(thing):
            assert CANARY not in text.replace(f"{CANARY}-token", "")


async def test_no_secret_is_in_what_a_bot_logs(autojump_clock, handler):
    async def serve(connection):
        await connection.send('{"type": "bad"}')
        await connection.send(f"not json: {CANARY}")
        await connection.send(f'{{"token": "{CANARY}"}}')
        await trio.sleep_forever()

    bot = wsclient.Bot(URL, connection=OPTIONS)

    @bot.on("bad")
    def fail(message, context):
        raise LookupError("handler failed")

    with memory_network() as network:
        async with FaultServer(network=network, handler=serve), trio.open_nursery() as nursery:
            await nursery.start(bot.serve)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    formatter = logging.Formatter()
    text = "\n".join(formatter.format(record) for record in handler.records)

    assert "handler failed" in text
    assert 2 == text.count("message undecoded")
    assert CANARY not in text
    assert CANARY not in repr(bot)


async def test_a_wrong_url_is_not_quoted():
    for url in (
        f"http://x:{CANARY}@server.test/{CANARY}",
        f"ws://server.test/{CANARY} {CANARY}",
        f"ws://x:{CANARY}/",
    ):
        with pytest.raises(ValueError, match="URL") as caught:
            wsclient.open_channel(url)
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- whatever peers say -------------------------------------------------------------------------

RUDE = "\x1b[31mred\n2000-01-01 ERROR forged\r\x07\x9b"
RAW = {"\x1b", "\r", "\x07", "\x9b"}


@pytest.mark.parametrize("renderer", ["json", "key and value", "logfmt", "console, plain"])
async def test_control_characters_of_peers_are_escaped(autojump_clock, renderer):
    out = configure_structlog(*RENDERERS[renderer])
    await listen_to_rude_peers()

    assert "forged" in out.getvalue()
    assert set() == RAW & set(out.getvalue())
    assert not any(line.startswith("2000") for line in out.getvalue().splitlines())


async def test_control_characters_of_peers_are_escaped_in_records(autojump_clock, handler):
    await listen_to_rude_peers()
    lines = [record.getMessage() for record in handler.records]

    assert any("forged" in line for line in lines)
    assert all(set() == (RAW | {"\n"}) & set(line) for line in lines)


async def listen_to_rude_peers():
    story = [
        Fault.close(1001, RUDE),
        Fault.close(4000, RUDE),
        attrs.evolve(GARBAGE_ANSWER, data=f"{RUDE}\r\n\r\n".encode()),
        Fault.reject(503, headers={"X-Rude": "x"}, body=RUDE.encode()),
        NONE,
    ]
    policy = wsclient.RetryPolicy(
        wait=tenacity.wait_fixed(1), classify=lambda loss, phase: wsclient.Retry("always")
    )
    recorder = EventRecorder()

    async def serve(connection):
        await connection.send(RUDE)
        await connection.send(json.dumps({"type": RUDE}))
        await trio.sleep_forever()

    bot = wsclient.Bot("ws://server.test", retry=policy, observers=[LoggingObserver(), recorder])
    with memory_network() as network:
        async with (
            FaultServer(story, network=network, handler=serve),
            trio.open_nursery() as nursery,
        ):
            await nursery.start(bot.serve)
            await recorder.wait_for(events.ConnectionReady, count=3)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()


def test_observers_that_are_copied_log_all_the_same(handler):
    copy.copy(LoggingObserver())(ONE_OF_EACH[1])

    assert 1 == len(handler.records)


async def test_the_failure_of_a_channel_is_logged_once(autojump_clock, handler):
    with memory_network() as network:
        async with FaultServer([REJECT_404], network=network) as server:
            with pytest.raises(wsclient.ChannelFailed):
                async with wsclient.open_channel(server.url):
                    await trio.sleep_forever()
    errors = [record for record in handler.records if record.levelname == "ERROR"]

    assert ["channel gave up"] == [record.args[0] for record in errors]
