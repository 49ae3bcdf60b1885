"""What can be asked for on the command line.

argparse quotes what it does not understand, and what it does not understand may be a URL with a
password or a header with a token.  So nothing is left to it that it would quote: the command is
looked up here, and unknown options are named without their values.  An unknown command is named
where it is a plain word.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeAlias

import attrs

import wsclient

from ._importing import NotFoundError, check_place
from ._text import escape

_MAIN_HELP: Final = """\
commands:
  listen URL    print what a server sends, across any number of connections, or what was kept of it
  repl URL      send and receive by hand
  run BOT       import a bot and let it serve
  demo          see a server die in different ways, and a channel live through it
  backoff       see when clients come back after an outage, and how many at once
  doctor [URL]  say what runs here and could run better, or how a server can be reached

`wsclient COMMAND --help` tells more.
"""

_LISTEN_HELP: Final = """\
Messages go to the standard output, one a line: control characters are escaped (a line end becomes
\\n), and a binary message is written as "[binary, 2 bytes] 6869".
The story of the connection goes to the standard error.

With --json both go to the standard output, one object a line, in ASCII:
  {"event": "message", "text": "…"}        a text message
  {"event": "message", "base64": "…"}      a binary message
  {"event": "gap_detected", "gap": {…}}    in its place between the messages
  {"event": "connection_lost", …}          and so on: the classes of wsclient's events, in lower
                                           case with underscores, with the fields of these classes

With --journal FILE what is received is kept there, too: 64 MiB at most, in four files, FILE.1 and
so on being the older ones. With --replay FILE, and no URL, it is printed again, without a server:
messages as they came, and what is missing on the standard error, or with --json in its place, each
object with the time (Unix time) and the epoch of its connection; and
  {"event": "not_recorded", "messages": 3, …}   messages that came there and could not be kept

Exit status: 0 when asked to stop (SIGTERM, or nobody reads the output any more) and at a journal's
end, 1 when the channel gave up (the standard error says why) or a journal cannot be read on, 2 for
wrong usage, 130 when interrupted (SIGINT, Ctrl-C).
"""

_DEMO_HELP: Final = """\
A server on this machine sends numbers and dies in different ways; one channel receives them, and
sends numbers of its own. In the end everything is accounted for.

On a terminal, and with rich installed, this is a picture that moves; otherwise it is lines.

Exit status: 0 if nothing is unaccounted for (also when asked to stop), 1 if something is, 2 for
wrong usage, 130 when interrupted (SIGINT, Ctrl-C).
"""

_DOCTOR_HELP: Final = """\
Without a URL nothing is connected to. One line for each finding:

  wsclient, Python, trio, wsproto, platform   which versions they are
  frame codec         whether it is compiled, and what to do if it is not
  TCP_USER_TIMEOUT    whether the kernel notices that what was sent is not acknowledged
  keepalive           whether the kernel can be told how often to ask a silent peer
  boot-time clock     whether a suspend of the machine is noticed
  python-socks, rich  whether the optional packages are installed

With a URL one connection is opened step by step, without a proxy. Each step has its time:

  resolve             the addresses of the host
  connect             which of them answers, and why others do not
  TLS                 version and cipher; the certificate's names, issuer and end
  upgrade             the subprotocol, and the extensions that were agreed on
  ping                the round trips: shortest, median and longest
  close               whether the server says goodbye

Where a step fails: the rule of wsclient's retry policy that the failure falls under, what a
channel would do by it (at startup, and in steady state), and what to do next.

With --json it is one object on one line, in ASCII:
  {"event": "findings", "wsclient": "…", "compiled": true, …}   null for what is not installed
With a URL it is one for each step, and one at the end:
  {"event": "step", "name": "ping", "ok": true, "seconds": 0.01, "min": 0.001, …}
  {"event": "diagnosis", "ok": false, "rule": "HTTP 401", "startup": "…", …}

Exit status: 0 whatever is found, and if every step went well; 1 if one failed, 2 for wrong usage,
130 when interrupted (SIGINT, Ctrl-C).
"""

_REPL_HELP: Final = """\
On a terminal a line is edited (arrows, Ctrl-A, E, K, U, W, Y, L; what is pasted is one message,
however many lines it has), and what happens stands above it: messages behind "<", the story of the
connection and what became of each message behind "*". /help tells the commands: /ping, /reconnect,
/explain, /statistics, /binary, /quit. Ctrl-D ends it.

Otherwise each line of the standard input is a message, also one that begins with "/". Messages that
come go to the standard output, one a line, as `wsclient listen` writes them, and the story, with
what became of messages that did not arrive, to the standard error. The end of the input lets
everything arrive, for 5 seconds at most, and ends it; --wait listens on.

With --json everything goes to the standard output, as of `wsclient listen`, and besides:
  {"event": "receipt", "message": 1, "outcome": "received", "seconds": 0.0012}
  {"event": "complaint", "text": "…"}      a line that could not be sent

Exit status: 0 when all went well, 1 when the channel gave up, or a message was not sent or is lost
for all that is known, 2 for wrong usage, 130 when interrupted (SIGINT, Ctrl-C).
"""

_RUN_HELP: Final = """\
The module is looked for in the current folder first; a module without a name means its bot:
  wsclient run shop.orders:bot
  wsclient run orders

The bot runs as bot.run() does: the first SIGINT (Ctrl-C) or SIGTERM lets handlers finish and what
was sent be written, the second ends it at once. What it logs and prints is its own matter.

With --reload it starts anew, in the same process, when a file changes of which it has loaded a
module, below the current folder; handlers finish before. What cannot be imported, and a bot that
has failed, waits for the next change of any .py file below the current folder.

Exit status: 0 when asked to stop, 1 when the channel gave up, or the bot or its module raised (the
standard error says what), 2 for wrong usage, or where there is no such bot, 130 when ended by a
second signal, or with --reload by SIGINT (Ctrl-C) while it waits for a change.
"""

_BACKOFF_HELP: Final = """\
Nothing is connected to, and nobody waits: time is a number here. All clients were connected, lose
their connections in the same moment, and are refused until the server is back.

A policy of your own is a RetryPolicy in a module, or what RetryPolicy(wait=…) takes: a tenacity
wait, or a function. The module is looked for in the current folder, too.
  wsclient backoff shop.settings:retry

On a terminal, and with rich installed, this is a picture; otherwise it is lines. With --json it is
one object on one line, in ASCII; times are seconds, "…_back_after" those since the server's return,
and null where too many gave up.

Exit status: 0, 1 if the policy's own code fails, 2 for wrong usage, 130 when interrupted (SIGINT,
Ctrl-C).
"""

_EXPLICIT: Final = re.compile("ignored explicit argument.*", re.DOTALL)

# What somebody has mistyped; a host, a password and a token look otherwise.
_WORD: Final = re.compile("[A-Za-z]{1,12}")

# RFC 9110 §5.6.2
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@attrs.frozen(kw_only=True)
class ListenArguments:
    """``wsclient listen``."""

    url: str | None = attrs.field(repr=False)
    """``None`` where a journal is replayed."""
    messages: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    subprotocols: tuple[str, ...]
    json: bool
    quiet: bool
    journal: str | None = None
    replay: str | None = None
    speed: float = math.inf


@attrs.frozen(kw_only=True)
class DemoArguments:
    """``wsclient demo``."""

    seconds: float
    seed: int | None
    json: bool
    plain: bool


@attrs.frozen(kw_only=True)
class ReplArguments:
    """``wsclient repl``."""

    url: str = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    subprotocols: tuple[str, ...]
    history: str | None
    wait: float
    json: bool
    plain: bool


@attrs.frozen(kw_only=True)
class RunArguments:
    """``wsclient run``."""

    bot: str
    reload: bool


@attrs.frozen(kw_only=True)
class BackoffArguments:
    """``wsclient backoff``."""

    policy: str | None
    clients: int
    outage: float
    cap: float | None
    seed: int
    json: bool
    plain: bool


@attrs.frozen(kw_only=True)
class DoctorArguments:
    """``wsclient doctor``."""

    url: str | None = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    subprotocols: tuple[str, ...]
    pings: int
    timeout: float
    json: bool
    plain: bool


Arguments: TypeAlias = (
    ListenArguments
    | ReplArguments
    | RunArguments
    | DemoArguments
    | BackoffArguments
    | DoctorArguments
)


class _Parser(argparse.ArgumentParser):
    """Says in two lines what is wrong."""

    def error(self, message: str) -> NoReturn:
        # It would quote the value: who types -h for -H gives it a header.
        message = _EXPLICIT.sub("it takes no value", message)
        complain(self.prog.removeprefix("wsclient").strip(), message)
        sys.exit(2)


def complain(command: str, message: str) -> int:
    """Say what is wrong with the arguments; return the exit status."""
    name = f"wsclient {command}".rstrip()
    print(f"{name}: error: {escape(message)}\nTry '{name} --help'.", file=sys.stderr)
    return 2


def parse(argv: Sequence[str]) -> Arguments:
    """Read the arguments.

    Raises:
        SystemExit: The help was asked for and printed (0), or something is wrong and was said (2).
    """
    parser = _Parser(
        prog="wsclient",
        description="A WebSocket client that reconnects, and says what it may have missed.",
        epilog=_MAIN_HELP,
        usage="wsclient [--help] [--version] COMMAND …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    build = "compiled" if wsclient.__compiled__ else "not compiled"
    version = f"wsclient {wsclient.__version__} ({build})"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = _known(parser, argv)
    if given.command is None:
        parser.print_help(sys.stderr)
        sys.exit(2)
    if "://" in given.command:
        parser.error("what shall be done with the URL? `wsclient listen URL` listens to it")
    if given.command not in _COMMANDS:
        parser.error(_unknown(given.command))
    return _COMMANDS[given.command](given.rest)


def _parse_listen(argv: Sequence[str]) -> ListenArguments:
    parser = _Parser(
        prog="wsclient listen",
        description="Print what a server sends, across any number of connections, until stopped.",
        epilog=_LISTEN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_opening(parser, is_optional=True)
    parser.add_argument(
        "--send",
        metavar="TEXT",
        action="append",
        default=[],
        type=_text,
        help="send this message, once, as soon as there is a connection; repeatable",
    )
    parser.add_argument(
        "--json", action="store_true", help="print messages and events as JSON, one object a line"
    )
    parser.add_argument("--quiet", action="store_true", help="print messages only, not the story")
    parser.add_argument(
        "--journal", metavar="FILE", help="keep what is received there; nobody else may read it"
    )
    parser.add_argument(
        "--replay", metavar="FILE", help="print what a journal holds, and connect to nobody"
    )
    parser.add_argument(
        "--speed",
        metavar="N",
        type=_between(0.001, 1_000_000),
        help="replay N times as fast as it came: 1 takes as long (default: do not wait)",
    )
    given = _known(parser, argv)
    if given.replay is None and given.url is None:
        parser.error("a URL is expected, or --replay FILE")
    if given.replay is not None and (
        given.url or given.send or given.header or given.subprotocol or given.journal
    ):
        parser.error("--replay connects to nobody: no URL, and nothing that is for one")
    if given.speed is not None and given.replay is None:
        parser.error("--speed is for --replay")
    return ListenArguments(
        url=given.url,
        messages=tuple(given.send),
        headers=tuple(given.header),
        subprotocols=tuple(given.subprotocol),
        json=given.json,
        quiet=given.quiet,
        journal=given.journal,
        replay=given.replay,
        speed=math.inf if given.speed is None else given.speed,
    )


def _add_opening(parser: _Parser, *, is_optional: bool = False) -> None:
    """What to connect to, and with what."""
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?" if is_optional else None,
        help="ws:// or wss://; user:password@ becomes an Authorization header",
    )
    parser.add_argument(
        "-H",
        "--header",
        metavar="NAME:VALUE",
        action="append",
        default=[],
        type=_header,
        help="send this header with each opening handshake; repeatable",
    )
    parser.add_argument(
        "--subprotocol",
        metavar="NAME",
        action="append",
        default=[],
        help="offer this subprotocol; repeatable, the preferred one first",
    )


def _parse_repl(argv: Sequence[str]) -> ReplArguments:
    parser = _Parser(
        prog="wsclient repl",
        description="Send and receive by hand, across any number of connections.",
        epilog=_REPL_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_opening(parser)
    parser.add_argument(
        "--history",
        metavar="FILE",
        help="keep the lines that are entered there, for the next time; nobody else may read it",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_between(0, 86_400),
        default=0.0,
        help="listen so long after the end of the input (default: 0)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON, one object a line"
    )
    parser.add_argument("--plain", action="store_true", help="edit no line, also on a terminal")
    given = vars(_known(parser, argv))
    headers, subprotocols = tuple(given.pop("header")), tuple(given.pop("subprotocol"))
    return ReplArguments(headers=headers, subprotocols=subprotocols, **given)


def _parse_demo(argv: Sequence[str]) -> DemoArguments:
    parser = _Parser(
        prog="wsclient demo",
        description="See a server die in different ways, and a channel live through it.",
        epilog=_DEMO_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=_between(1, 3600),
        default=15.0,
        help="how long it takes, about (default: 15)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, help="draw the waits between attempts from this seed"
    )
    parser.add_argument(
        "--json", action="store_true", help="print events and the summary as JSON, one a line"
    )
    parser.add_argument("--plain", action="store_true", help="print lines, also on a terminal")
    given = _known(parser, argv)
    return DemoArguments(seconds=given.seconds, seed=given.seed, json=given.json, plain=given.plain)


def _parse_run(argv: Sequence[str]) -> RunArguments:
    parser = _Parser(
        prog="wsclient run",
        description="Import a bot and let it serve.",
        epilog=_RUN_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bot", metavar="MODULE:NAME", type=_place, help="where the bot is")
    parser.add_argument(
        "--reload", action="store_true", help="start it anew when its source changes"
    )
    given = _known(parser, argv)
    if given.reload and sys.platform == "win32":
        parser.error("--reload replaces the process, which this system cannot do")
    return RunArguments(**vars(given))


def _parse_backoff(argv: Sequence[str]) -> BackoffArguments:
    parser = _Parser(
        prog="wsclient backoff",
        description="See when clients come back after an outage, and how many at once.",
        epilog=_BACKOFF_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "policy",
        metavar="MODULE:NAME",
        nargs="?",
        type=_place,
        help="a retry policy, or a wait (default: the policy of a channel that is given none)",
    )
    parser.add_argument(
        "--clients",
        metavar="N",
        type=_whole(1, 100_000),
        default=1000,
        help="how many lose their connections (default: 1000); of 1, all its waits are shown",
    )
    parser.add_argument(
        "--outage",
        metavar="SECONDS",
        type=_between(0, 86_400),
        default=60.0,
        help="how long the server is away (default: 60)",
    )
    parser.add_argument(
        "--cap",
        metavar="SECONDS",
        type=_between(0.001, 86_400),
        help="the default waits, growing to this instead of 30 seconds",
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, default=1, help="draw other waits (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plain", action="store_true", help="print lines, also on a terminal")
    given = _known(parser, argv)
    if given.policy is not None and given.cap is not None:
        parser.error("--cap belongs to the default waits, and MODULE:NAME names others")
    return BackoffArguments(**vars(given))


def _parse_doctor(argv: Sequence[str]) -> DoctorArguments:
    parser = _Parser(
        prog="wsclient doctor",
        description="Say what runs here and could run better, or how a server can be reached.",
        epilog=_DOCTOR_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_opening(parser, is_optional=True)
    parser.add_argument(
        "--pings",
        metavar="N",
        type=_whole(1, 1000),
        default=5,
        help="how many are sent, one after the other (default: 5)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_between(0.001, 3600),
        default=10.0,
        help="for each step, and each ping (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument("--plain", action="store_true", help="print lines, also on a terminal")
    given = vars(_known(parser, argv))
    headers, subprotocols = tuple(given.pop("header")), tuple(given.pop("subprotocol"))
    if given["url"] is None and (headers or subprotocols):
        parser.error("headers and subprotocols are for a URL, and there is none")
    return DoctorArguments(headers=headers, subprotocols=subprotocols, **given)


_COMMANDS: Final[dict[str, Callable[[Sequence[str]], Arguments]]] = {
    "listen": _parse_listen,
    "repl": _parse_repl,
    "run": _parse_run,
    "demo": _parse_demo,
    "backoff": _parse_backoff,
    "doctor": _parse_doctor,
}


def _unknown(command: str) -> str:
    *names, last = _COMMANDS
    there_are = f"there are {', '.join(names)} and {last}"
    if not _WORD.fullmatch(command):
        return f"unknown command; {there_are}"
    for near in difflib.get_close_matches(command.lower(), _COMMANDS, n=1):
        return f"unknown command {command!r}: did you mean {near}?"
    return f"unknown command {command!r}; {there_are}"


def _known(parser: _Parser, argv: Sequence[str]) -> argparse.Namespace:
    given, unknown = parser.parse_known_args(argv)
    for argument in unknown:
        if argument.startswith("--"):
            parser.error(f"unknown option {argument.partition('=')[0]}")
        if argument.startswith("-"):
            parser.error(f"unknown option {argument[:2]}")
    if unknown:
        parser.error("too many arguments")
    return given


def _place(argument: str) -> str:
    try:
        check_place(argument)
    except NotFoundError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return argument


def _text(argument: str) -> str:
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not valid Unicode") from None
    return argument


def _header(argument: str) -> tuple[str, str]:
    name, colon, value = argument.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
        # Not quoted: what stands in the wrong place may be the token.
        raise argparse.ArgumentTypeError("a header is NAME:VALUE, such as 'X-Room: 5'")
    return name, value.strip(" \t")


def _between(least: float, most: float) -> Callable[[str], float]:
    def convert(argument: str) -> float:
        try:
            number = float(argument)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"a number from {least:g} to {most:g} is expected")
        return number

    return convert


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(argument: str) -> int:
        if not argument.isdecimal() or not least <= int(argument[:20]) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is expected")
        return int(argument)

    return convert


def _seed(argument: str) -> int:
    try:
        return int(argument)
    except ValueError:
        raise argparse.ArgumentTypeError("a whole number is expected") from None
