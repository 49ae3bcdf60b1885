"""Types through msgspec: Structs, attrs classes, dataclasses, TypedDict, and what they are made of.

The only file that imports msgspec; it is imported when msgspec is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from wsclient.errors import CodecError

from ._annotation import name_of
from ._library import Decoder, is_typed, library_for

# What may come out of decoding.
_FAULTS: Final = (msgspec.DecodeError, UnicodeError, RecursionError)

read_json: Final[Decoder] = msgspec.json.Decoder().decode


def json_decoder(annotation: Any, read: Decoder) -> Decoder:
    """Decodes JSON into a type; see ``Library``."""
    convert = converter(annotation)
    native = msgspec.json.Decoder(annotation).decode

    def decode(message: str | bytes) -> Any:
        try:
            return native(message)
        except msgspec.ValidationError as error:
            raise _fault(error) from None
        except _FAULTS:
            # Not JSON; or half of a surrogate pair, from which msgspec shrinks.
            return convert(read(message))

    return decode


def msgpack_decoder(annotation: Any) -> Decoder:
    """Decodes MessagePack into a type.

    Raises:
        TypeError: msgspec cannot.
    """
    _check(annotation)
    native = msgspec.msgpack.Decoder(annotation).decode

    def decode(message: str | bytes) -> Any:
        if isinstance(message, str):
            raise CodecError("not MessagePack: a text message")
        try:
            return native(message)
        except _FAULTS as error:
            raise _fault(error) from None

    return decode


def converter(annotation: Any) -> Callable[[Any], Any]:
    """Makes a value of a type from builtin ones; see ``Library``."""
    _check(annotation)

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except _FAULTS as error:
            raise _fault(error) from None

    return convert


def to_builtins(value: Any) -> Any:
    """What is to be written as JSON; see ``Library``."""
    return msgspec.to_builtins(value, enc_hook=_hook)


def _hook(value: Any) -> Any:
    """What is to be written for a value that msgspec does not know."""
    if is_typed(value):
        return library_for(type(value)).to_builtins(value)
    raise TypeError(f"an object of type {type(value).__name__} has no form in a message")


write_msgpack: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder(enc_hook=_hook).encode


def field_type(struct: type[msgspec.Struct], key: str) -> Any:
    """What the field that is called ``key`` in a message holds; ``None`` if there is none."""
    types = [each.type for each in msgspec.structs.fields(struct) if each.encode_name == key]
    return types[0] if types else None


def kind_struct(key: str) -> Any:
    """A type for messages of which only the field that names their type is of interest."""
    return msgspec.defstruct("Kind", [("kind", Any, None)], rename={"kind": key})


# --- what cannot be decoded into ------------------------------------------------------------------


def _check(annotation: Any) -> None:
    try:
        foreign = list(_foreign(inspect.type_info(annotation), seen=set()))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name_of(annotation)} cannot be decoded into: {error}") from error
    except NameError as error:
        raise TypeError(
            f"the annotations in {name_of(annotation)} cannot be resolved: {error}"
        ) from error
    if foreign:
        # msgspec would let it pass here, and refuse every message.
        raise TypeError(
            f"{name_of(annotation)} cannot be decoded into: msgspec does not know"
            f" {', '.join(foreign)}"
        )


def _foreign(info: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(info, inspect.CustomType):
        yield name_of(info.cls)
    if isinstance(info, tuple):
        for each in info:
            yield from _foreign(each, seen)
    elif isinstance(info, (inspect.Type, inspect.Field)) and id(info) not in seen:
        seen.add(id(info))  # A type may have itself within.
        for name in info.__struct_fields__:
            yield from _foreign(getattr(info, name), seen)


# --- what is wrong with a message -----------------------------------------------------------------

_PLACE: Final = re.compile(r" - at (?:`key` in )?`(\$[^`]*)`$")
# Of msgspec's texts the only ones that quote the message.
_QUOTING: Final = re.compile(
    r"(Invalid (?:enum )?value|Object contains unknown field) .*", re.DOTALL
)


def _fault(error: Exception) -> CodecError:
    """What is wrong with a message, and where, without a word of it."""
    if isinstance(error, RecursionError):
        return CodecError("nested too deeply")
    if isinstance(error, UnicodeError):
        return CodecError("not valid UTF-8")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return CodecError(f"not MessagePack: {text}")
    place = _PLACE.search(text)
    path = "$" if place is None else place[1]
    if error.__cause__ is not None:
        # The user's own check: nobody knows what its text says.
        return CodecError(
            f"refused by the type's own check: {type(error.__cause__).__name__}", path
        )
    return CodecError(_QUOTING.sub(r"\1", _PLACE.sub("", text)), path)
