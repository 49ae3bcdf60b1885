"""What it costs to decode a message into a type, beside the library that does it alone.

    python benchmarks/typed.py            the wsclient of this interpreter

Each row is a pair: the decoder that a handler's annotation gets, and what it stands on.
They take turns, in rounds; told are the medians, and their ratio.
Needs msgspec and pydantic.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal

import attrs
import msgspec
import pydantic
from compare import machine, print_table

import wsclient
from wsclient.app._typed import decoder_for, kind_reader

MESSAGE: Final = (
    '{"type":"trade","price":42015.5,"symbol":"BTCUSDT","size":0.001,"side":"buy"'
    ',"id":123456,"time":1700000000000}'
)


class Trade(msgspec.Struct, tag="trade"):
    price: float
    symbol: str
    size: float
    side: str
    id: int
    time: int


class Quote(msgspec.Struct, tag="quote"):
    bid: float
    ask: float


@dataclass
class Data:
    type: Literal["trade"]
    price: float
    symbol: str
    size: float
    side: str
    id: int
    time: int


class Model(pydantic.BaseModel):
    type: Literal["trade"]
    price: float
    symbol: str
    size: float
    side: str
    id: int
    time: int


Decoder = Callable[[str | bytes], Any]


@attrs.frozen
class Pair:
    """A decoder, and what it stands on."""

    name: str
    ours: Decoder
    alone: Decoder
    message: str | bytes = MESSAGE


def pairs() -> list[Pair]:
    """What is measured."""
    codec = wsclient.JsonCodec()
    packed = wsclient.MsgpackCodec()

    def into(annotation: object, codec: wsclient.Codec = codec) -> Decoder:
        return decoder_for(annotation, codec, key="type")

    return [
        Pair("Struct", into(Trade), msgspec.json.Decoder(Trade).decode),
        Pair("Struct | Struct", into(Trade | Quote), msgspec.json.Decoder(Trade | Quote).decode),
        Pair(
            "Struct, MessagePack",
            into(Trade, packed),
            msgspec.msgpack.Decoder(Trade).decode,
            msgspec.msgpack.encode(json.loads(MESSAGE)),
        ),
        Pair("dataclass", into(Data), msgspec.json.Decoder(Data).decode),
        Pair("pydantic model", into(Model), Model.model_validate_json),
        Pair("dict", into(dict), msgspec.json.Decoder().decode),
        Pair("dict, against json.loads", into(dict), json.loads),
        Pair("only the type", kind_reader(codec, key="type"), msgspec.json.Decoder(Trade).decode),
    ]


@attrs.frozen
class Cost:
    """What one pair costs."""

    name: str
    ours: float
    """Nanoseconds a message: the median of the rounds."""
    alone: float
    ratio: float


def nanoseconds(decode: Decoder, message: str | bytes, count: int) -> float:
    """CPU time for each of ``count`` messages."""
    began = time.process_time_ns()
    for _ in range(count):
        decode(message)
    return (time.process_time_ns() - began) / count


def measure(rounds: int, count: int) -> list[Cost]:
    """Measure every pair, in turns."""
    every = pairs()
    taken: list[tuple[list[float], list[float]]] = [([], []) for _ in every]
    for number in range(rounds + 1):
        print(f"\rround {number} of {rounds} ", end="", file=sys.stderr, flush=True)
        for pair, (ours, alone) in zip(every, taken, strict=True):
            for decode, times in ((pair.ours, ours), (pair.alone, alone)):
                each = nanoseconds(decode, pair.message, count)
                if number:  # The first one warms up.
                    times.append(each)
    print(file=sys.stderr)
    medians = [(statistics.median(ours), statistics.median(alone)) for ours, alone in taken]
    return [
        Cost(pair.name, ours, alone, ours / alone)
        for pair, (ours, alone) in zip(every, medians, strict=True)
    ]


HEADER: Final = ("into", "ns", "alone", "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="9 if not given")
    parser.add_argument("--messages", type=int, default=100_000, metavar="N", help="in each round")
    parser.add_argument("--json", action="store_true", help="for other programs")
    arguments = parser.parse_args()
    costs = measure(arguments.rounds, arguments.messages)
    if arguments.json:
        print(json.dumps([attrs.asdict(cost) for cost in costs], indent=2))
        return
    rows = [
        (each.name, f"{each.ours:.0f}", f"{each.alone:.0f}", f"{each.ratio:.2f}") for each in costs
    ]
    print_table(HEADER, rows)
    print(
        f"\n{machine()}; medians of {arguments.rounds} rounds with {arguments.messages:,} messages"
        f" of {len(MESSAGE)} bytes; msgspec {version('msgspec')}, pydantic {version('pydantic')}"
    )


if __name__ == "__main__":
    main()
