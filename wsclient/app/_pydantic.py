"""Types through pydantic: its models and dataclasses, and whatever has one of them within.

The only file that imports pydantic; it is imported when there is a model.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import pydantic
from pydantic_core import core_schema

from wsclient.errors import CodecError

from ._annotation import name_of
from ._library import Decoder


def json_decoder(annotation: Any, read: Decoder) -> Decoder:
    """Decodes JSON into a type; see ``Library``."""
    adapter = _adapter(annotation)
    native, names = adapter.validate_json, _names(adapter)

    def decode(message: str | bytes) -> Any:
        if _is_doubtful(message):
            read(message)
        try:
            return native(message)
        except pydantic.ValidationError as error:
            fault = _fault(error, names)
            if fault.path is None:
                read(message)  # Its text says where.
            raise fault from None

    return decode


def _is_doubtful(message: str | bytes) -> bool:
    # pydantic takes for numbers what is not JSON.
    if isinstance(message, str):
        return "NaN" in message or "Infinity" in message
    return b"NaN" in message or b"Infinity" in message


def converter(annotation: Any) -> Callable[[Any], Any]:
    """Makes a value of a type from builtin ones; see ``Library``."""
    adapter = _adapter(annotation)
    native, names = adapter.validate_python, _names(adapter)

    def convert(value: Any) -> Any:
        try:
            return native(value)
        except pydantic.ValidationError as error:
            raise _fault(error, names) from None

    return convert


def to_builtins(value: Any) -> Any:
    """What is to be written as JSON; see ``Library``."""
    # By alias: what a model writes, the same model reads.
    return _dumper(type(value))(value, mode="json", by_alias=True)


def _make_dumper(cls: Any) -> Callable[..., Any]:
    dump: Callable[..., Any] = pydantic.TypeAdapter(cls).dump_python
    return dump


_dumper: Final[Callable[[Any], Callable[..., Any]]] = lru_cache(_make_dumper)


def field_type(cls: Any, key: str) -> Any:
    """What the field that is called ``key`` in a message holds; ``None`` if there is none."""
    for name, field in cls.__pydantic_fields__.items():
        if key in (field.validation_alias, field.alias) or (
            key == name and field.validation_alias is None
        ):
            return field.annotation
    return None


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        adapter = pydantic.TypeAdapter[Any](annotation)
        # A model of which a part is not there yet would say so at every message.
        adapter.rebuild(raise_errors=True)
    except (pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation) as error:
        first, *_ = str(error).splitlines()
        raise TypeError(f"{name_of(annotation)} cannot be decoded into: {first}") from error
    return adapter


# What pydantic's texts may say: it comes from the type, and not from the message.
_OF_THE_TYPE: Final = frozenset(
    {
        "actual_length",
        "class",
        "class_name",
        "decimal_places",
        "discriminator",
        "expected",
        "expected_tags",
        "field_name",
        "field_type",
        "ge",
        "gt",
        "le",
        "lt",
        "max_digits",
        "max_length",
        "method_name",
        "min_length",
        "multiple_of",
        "pattern",
        "whole_digits",
    }
)
_KNOWN: Final = frozenset(typing.get_args(core_schema.ErrorType))


def _names(adapter: pydantic.TypeAdapter[Any]) -> frozenset[str]:
    """Every text that stands in a type's schema: its fields and their aliases among them."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = [adapter.core_schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found.add(part)
        elif isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))  # A default value may have itself within.
            waiting += part
            if isinstance(part, dict):
                waiting += part.values()
    return frozenset(found)


# What pydantic says of a key that is wrong itself.
_KEY: Final = "[key]"
# And of a member of a union: `list[int]`.
_MEMBER: Final = re.compile(r"([a-z-]+)\[([a-z-]+)\]")


def _step(step: str | int, names: frozenset[str]) -> str:
    """A step of the way to a fault; a key that the type does not know is the message's own."""
    if isinstance(step, int):
        return f"[{step}]"
    if step == _KEY:
        return step
    member = _MEMBER.fullmatch(step)
    parts = {step} if member is None else {*member.groups()}
    return f".{step}" if parts <= names else "[...]"


def _fault(error: pydantic.ValidationError, names: frozenset[str]) -> CodecError:
    first, *others = error.errors(include_url=False, include_input=False)
    kind = first["type"]
    # A validator of the user's may say anything.
    is_safe = kind in _KNOWN and first.get("ctx", {}).keys() <= _OF_THE_TYPE
    text = first["msg"] if is_safe else kind.replace("_", " ")
    if others:
        text += f", and {len(others)} more"
    # Of a text within the message that is to be JSON as well, it is known where that is.
    if kind == "json_invalid" and not first["loc"]:
        return CodecError("not JSON")
    return CodecError(text, "$" + "".join(_step(step, names) for step in first["loc"]))
