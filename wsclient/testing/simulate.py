"""Run many schedules on virtual time, and judge each: ``python -m wsclient.testing.simulate``.

Exits with 0 if every invariant held, 1 if one was broken, 2 if it was called wrongly.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final, TextIO

import attrs

from wsclient.events import Gap, Overflow

from ._invariants import Breach
from ._simulation import Run, simulate

TRACES: Final = 3
"""Broken schedules of which the whole trace is printed; of the others a line is."""

_BAR: Final = 24
_CHUNK: Final = 20
"""Schedules that a process takes at a time."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What is kept of a run."""

    seed: int
    breaches: tuple[Breach, ...]
    trace: str
    """Of a broken run only."""
    counts: Counter[str]


def judge(seed: int, messages: int) -> Verdict:
    """Run one schedule."""
    run = simulate(seed, messages)
    return Verdict(
        seed=seed,
        breaches=run.breaches,
        trace=run.trace if run.breaches else "",
        counts=_counts(run),
    )


def _counts(run: Run) -> Counter[str]:
    history = run.history
    gaps = sum(isinstance(item, Gap) for item in history.received)
    overflows = [item for item in history.received if isinstance(item, Overflow)]
    counts = Counter(
        messages_sent=len(history.sent),
        messages_received=len(history.received) - gaps - len(overflows),
        messages_dropped=sum(overflow.messages for overflow in overflows),
        gaps=gaps,
        attempts=len(history.attempts),
        killed=run.killed,
    )
    counts.update(
        f"outcome: {outcome.value}" for message in history.sent for outcome in message.outcomes
    )
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.replay is not None:
        run = simulate(options.replay, options.messages)
        print(_replay_as_json(run) if options.json else run.trace.rstrip("\n"))
        return 1 if run.breaches else 0
    began = time.perf_counter()
    seeds = range(options.seed, options.seed + options.schedules)
    progress = Progress(len(seeds), sys.stderr, clock=time.perf_counter)
    verdicts: list[Verdict] = []
    for verdict in _judge_all(seeds, options.messages, options.jobs):
        verdicts.append(verdict)
        progress.tell(len(verdicts), sum(bool(each.breaches) for each in verdicts))
    progress.end()
    seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps(_as_json(verdicts, options, seconds), indent=2))
    else:
        for line in _report(verdicts, options, seconds):
            print(line)
    return 1 if any(verdict.breaches for verdict in verdicts) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wsclient.testing.simulate",
        description="Run schedules of faults and user actions on virtual time, and judge each by"
        " the invariants that wsclient promises.",
    )
    parser.add_argument("--schedules", type=_count, default=500, help="how many (default: 500)")
    parser.add_argument(
        "--messages", type=_count, default=50, help="that each side sends, at most (default: 50)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule (default: 1)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes; 0 takes all processors (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--replay", type=int, metavar="SEED", help="run this schedule alone, and print its trace"
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _judge_all(seeds: Sequence[int], messages: int, jobs: int) -> Iterator[Verdict]:
    run = partial(judge, messages=messages)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs or os.cpu_count()) as pool:
        yield from pool.map(run, seeds, chunksize=_CHUNK)


class Progress:
    """A line on a terminal that says how far it is; nothing where there is no terminal."""

    def __init__(self, total: int, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._total = total
        self._stream = stream
        self._clock = clock
        self._began = self._told_at = clock()
        self._is_shown = stream.isatty()

    def tell(self, done: int, broken: int) -> None:
        """So many are done, and so many of these are broken."""
        now = self._clock()
        if not self._is_shown or (now - self._told_at < 0.1 and done < self._total):
            return
        self._told_at = now
        speed = done / max(now - self._began, 1e-9)
        bar = "█" * (done * _BAR // self._total)
        left = (self._total - done) / speed
        self._stream.write(
            f"\r{bar:░<{_BAR}} {done:,}/{self._total:,}  {speed:.0f}/s"
            f"  {broken} broken  {left // 60:.0f}:{left % 60:02.0f} left\x1b[K"
        )
        self._stream.flush()

    def end(self) -> None:
        """Make room for what follows."""
        if self._is_shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _report(
    verdicts: Sequence[Verdict], options: argparse.Namespace, seconds: float
) -> Iterable[str]:
    broken = [verdict for verdict in verdicts if verdict.breaches]
    for number, verdict in enumerate(broken):
        yield f"schedule {verdict.seed} breaks {verdict.breaches[0]}"
        yield (
            f"  replay: python -m wsclient.testing.simulate --replay {verdict.seed}"
            f" --messages {options.messages}"
        )
        if number < TRACES:
            yield verdict.trace
    totals = _totals(verdicts)
    yield (
        f"{len(verdicts):,} schedules in {seconds:.1f} s, {len(verdicts) / seconds:.0f} a second:"
        f" {totals['messages_sent']:,} messages sent, {totals['messages_received']:,} received"
        f" and {totals['messages_dropped']:,} dropped,"
        f" {totals['attempts']:,} attempts at a connection, {totals['gaps']:,} gaps,"
        f" {totals['killed']:,} processes killed"
    )
    for name, count in sorted(totals.items()):
        if name.startswith("outcome: "):
            yield f"  {count:8,} {name.removeprefix('outcome: ')}"
    yield "all invariants hold" if not broken else f"{len(broken):,} schedules are broken"


def _totals(verdicts: Iterable[Verdict]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for verdict in verdicts:
        totals.update(verdict.counts)
    return totals


def _breaches_as_json(breaches: Iterable[Breach]) -> list[dict[str, str]]:
    return [attrs.asdict(breach) for breach in breaches]


def _as_json(
    verdicts: Sequence[Verdict], options: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    return {
        "schedules": len(verdicts),
        "messages": options.messages,
        "seed": options.seed,
        "seconds": round(seconds, 3),
        "schedules_per_second": round(len(verdicts) / seconds, 1),
        "totals": dict(sorted(_totals(verdicts).items())),
        "broken": [
            {"seed": verdict.seed, "breaches": _breaches_as_json(verdict.breaches)}
            for verdict in verdicts
            if verdict.breaches
        ],
    }


def _replay_as_json(run: Run) -> str:
    return json.dumps(
        {
            "seed": run.seed,
            "breaches": _breaches_as_json(run.breaches),
            "trace": run.trace.splitlines(),
        },
        indent=2,
    )


if __name__ == "__main__":
    sys.exit(main())
