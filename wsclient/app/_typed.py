"""From a message to what a handler's parameter is annotated with.

The annotation decides, once, when the handler is registered; what it decides is a function that is
called for each message.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

from wsclient.errors import CodecError

from ._annotation import bare, members_of, name_of
from ._codec import Codec
from ._kinds import kinds_of
from ._library import Decoder, is_for_pydantic, library_for


def decoder_for(annotation: Any, codec: Codec, *, key: str) -> Decoder:
    """What makes of a message the value that a parameter is annotated with.

    - ``str`` and ``bytes`` are the message as it came.
    - ``Any``, or no annotation: what the codec makes of it; and so are ``dict``,
      ``dict[str, Any]``, ``list`` and their like, if it is one.
    - Any other type is decoded into.
      A union of types of which each says which messages it is for (``kinds_of``) is decoded into
      the one that the message's field ``key`` says.

    Made once for each annotation.

    Returns:
        A function that raises ``CodecError`` for a message that is nothing of the kind.

    Raises:
        TypeError: There is no way into this type, or what it needs is not installed.
    """
    if _is_hashable((annotation, codec)):
        return _make_once(annotation, codec, key)
    return _make(annotation, codec, key)


def converter_for(annotation: Any, *, key: str) -> Callable[[Any], Any]:
    """What makes of a value that is decoded already what a parameter is annotated with.

    Returns:
        A function that raises ``CodecError`` for a value that is nothing of the kind.

    Raises:
        TypeError: There is no way into this type, or what it needs is not installed.
    """
    return decoder_for(annotation, _VALUES, key=key)


def plain_types(annotation: Any) -> tuple[type, ...] | None:
    """The types of which a value must be that is taken as the codec makes it.

    Returns:
        ``None`` if it is not, but decoded into something; ``(object,)`` if it may be anything.
    """
    members = members_of(annotation)
    if Any in members or object in members:
        return (object,)
    if typing.get_origin(bare(annotation)) is Annotated:
        return None  # What is added may have to be looked at.
    found: list[type] = []
    for member in members:
        plain = _plain(member)
        if plain is None:
            return None
        found += plain
    return tuple(found)


def kind_reader(codec: Codec, *, key: str) -> Callable[[str | bytes], str]:
    """What reads of a message its field ``key``, which names its type, and little else.

    Returns:
        A function that raises ``CodecError`` for a message that cannot be decoded, or has no such
        field.
    """
    fast = kind_peeker(codec, key=key)

    def read(message: str | bytes) -> str:
        if fast is not None:
            try:
                kind = fast(message).kind
            except Exception:  # A codec of the user's may raise anything.
                pass  # It is for it to say what is wrong with the whole message.
            else:
                if isinstance(kind, str):
                    return kind
        return kind_in(codec.decode(message), key)

    return read


def kind_in(value: Any, key: str) -> str:
    """What the field ``key`` of a decoded message says.

    Raises:
        CodecError: There is no such field, or it is not text.
    """
    kind = value.get(key) if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise CodecError(f"the message has no field {key!r} that names its type")
    return kind


def _make(annotation: Any, codec: Codec, key: str) -> Decoder:
    annotation = bare(annotation)
    members = members_of(annotation)
    plain = plain_types(annotation)
    if plain == (object,):
        return codec.decode
    raw = [member for member in members if member is str or member is bytes]
    if raw and len(raw) < len(members):
        raise TypeError(
            f"{name_of(annotation)}: str and bytes are the message as it came, and cannot be told"
            " from what is decoded"
        )
    if raw:
        return _as_it_came(tuple(raw))
    if plain is not None:
        return _checked(codec, plain)
    table = _members_by_kind(members, key)
    if (
        table is None
        # A union of tagged Structs is one step of msgspec's.
        or all(hasattr(member, "__struct_config__") for member in table.values())
        # What is added to a union for pydantic, it looks at itself.
        or is_for_pydantic(annotation)
    ):
        return _straight(annotation, codec)
    decoders = {kind: _straight(member, codec) for kind, member in table.items()}
    return _by_kind(decoders, kind_reader(codec, key=key), f"$.{key}")


class _Values:
    """A codec whose messages are values."""

    def encode(self, value: Any) -> Any:
        return value

    def decode(self, message: Any) -> Any:
        return message


_VALUES: Final = _Values()

_make_once: Final[Callable[[Any, Any, str], Decoder]] = lru_cache(maxsize=1024)(_make)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:  # What ``Annotated`` adds may be anything, and so may codecs.
        return False
    return True


# --- as it came, or as the codec makes it --------------------------------------------------------


def _as_it_came(types: tuple[type, ...]) -> Decoder:
    if len(set(types)) > 1:
        return lambda message: message
    (wanted,) = set(types)
    text = (
        "a binary message, and a text one (str) is expected"
        if wanted is str
        else "a text message, and a binary one (bytes) is expected"
    )

    def take(message: str | bytes) -> str | bytes:
        if isinstance(message, wanted):
            return message
        raise CodecError(text)

    return take


# What is asked for without more → what a codec may give for it.
_PLAIN: Final[dict[Any, tuple[type, ...]]] = {
    dict: (dict,),
    Mapping: (Mapping,),
    MutableMapping: (MutableMapping,),
    list: (list,),
    Sequence: (list, tuple),  # A str is one, too.
    MutableSequence: (MutableSequence,),
    types.NoneType: (types.NoneType,),
}


def _plain(member: Any) -> tuple[type, ...] | None:
    """The types of which the value must be, if what is in it need not be looked at."""
    arguments = typing.get_args(member)
    *keys, values = arguments or (Any,)
    is_anything = values in (Any, object) and all(each in (str, Any, object) for each in keys)
    origin = typing.get_origin(member) or member
    return _PLAIN.get(origin) if is_anything else None


def _checked(codec: Codec, types: tuple[type, ...]) -> Decoder:
    names = " or ".join(f"`{each.__name__}`" for each in types)

    def decode(message: str | bytes) -> Any:
        value = codec.decode(message)
        if isinstance(value, types):
            return value
        raise CodecError(f"Expected {names}, got `{type(value).__name__}`", "$")

    return decode


# --- into types -----------------------------------------------------------------------------------


def _straight(annotation: Any, codec: Codec) -> Decoder:
    """By the codec itself, if it can; else from what it decodes."""
    decoder = getattr(codec, "decoder", None)
    found: Decoder | None = None if decoder is None else decoder(annotation)
    if found is not None:
        return found
    read = codec.decode
    convert = library_for(annotation).converter(annotation)
    return lambda message: convert(read(message))


def _members_by_kind(members: tuple[Any, ...], key: str) -> dict[str, Any] | None:
    """Which member of a union a message's type says; ``None`` if not all say, or two the same."""
    if len(members) == 1:
        return None
    table: dict[str, Any] = {}
    for member in members:
        kinds = kinds_of(member, key=key)
        if kinds is None or not table.keys().isdisjoint(kinds):
            return None
        table.update(dict.fromkeys(kinds, member))
    return table


def _by_kind(
    decoders: dict[str, Decoder], read_kind: Callable[[str | bytes], str], path: str
) -> Decoder:
    def decode(message: str | bytes) -> Any:
        decoder = decoders.get(read_kind(message))
        if decoder is None:
            raise CodecError("a type of message that none of the union is for", path)
        return decoder(message)

    return decode


def kind_peeker(codec: Codec, *, key: str) -> Decoder | None:
    """What decodes of a message its field ``key`` alone, as the attribute ``kind``.

    Returns:
        A function that raises ``CodecError``; ``None`` if nothing is faster than the whole message.
    """
    decoder = getattr(codec, "decoder", None)
    if decoder is None:
        return None
    try:
        from . import _msgspec

        found: Decoder | None = decoder(_msgspec.kind_struct(key))
    except (ImportError, TypeError):  # A codec need not know msgspec's types.
        return None
    return found
