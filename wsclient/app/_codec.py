"""What a bot's messages look like on the wire."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from wsclient.errors import CodecError

from ._library import NEEDS_MSGSPEC, Decoder, is_pydantic, is_typed, library_for


class Codec(Protocol):
    """Turns values into messages and back.

    An object of your own with these two methods will do.
    Handlers whose parameter is annotated with a type get what ``decode`` returns, converted.

    A codec that can decode straight into a type has a method ``decoder(annotation)`` as well.
    It returns a function that makes a value of this type of a message, or ``None`` for a type into
    which ``decode`` and the conversion lead; it may raise ``TypeError`` for what is no such type.
    """

    def encode(self, value: Any) -> str | bytes:
        """A message from a value.

        Raises:
            CodecError: The value has no such form.
        """

    def decode(self, message: str | bytes) -> Any:
        """A value from a message, made of builtin types.

        Raises:
            CodecError: The message is not of this form.
        """


class JsonCodec:
    """JSON (RFC 8259) in text messages.

    Decoding takes UTF-8 in binary messages, too.
    Both refuse ``NaN`` and ``Infinity``, which are not JSON; encoding refuses lone surrogates,
    which are not text.

    Where msgspec is installed (``wsclient-trio[msgspec]``) it reads the messages: the values are
    the same, and come sooner.
    It also decodes into types, and encodes what is of one:
    see :doc:`/how-to/receive-typed-messages`.
    """

    def __init__(self) -> None:
        self._read = _fast_reader()

    def encode(self, value: Any) -> str:
        """A text message from a value.

        Raises:
            CodecError: It is not made of what JSON knows, nor of a type that could be decoded.
        """
        try:
            message = _ENCODER.encode(value)
            message.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"cannot be encoded as JSON: {_short(error)}") from error
        return message

    def decode(self, message: str | bytes) -> Any:
        """A value from a message.

        Raises:
            CodecError: It is not JSON; the text says where, and does not quote it.
        """
        if self._read is not None:
            try:
                return self._read(message)
            except Exception:
                # Here and there msgspec is stricter, and its texts differ: let the standard
                # library judge, as it does where there is no msgspec.
                pass
        try:
            return _DECODER.decode(message if isinstance(message, str) else message.decode())
        except (ValueError, RecursionError) as error:
            raise CodecError(f"not JSON: {_short(error)}") from error

    def decoder(self, annotation: Any) -> Decoder:
        """What decodes a message straight into a type.

        Raises:
            TypeError: There is no way into this type, or what it needs is not installed.
        """
        return library_for(annotation).json_decoder(annotation, self.decode)


class MsgpackCodec:
    """MessagePack in binary messages, by msgspec (``wsclient-trio[msgspec]``).

    It knows more than JSON: bytes, timestamps with a time zone (``datetime.datetime``), keys that
    are no text, ``NaN``; an extension is a ``msgspec.msgpack.Ext``.

    Raises:
        TypeError: msgspec is not installed.
    """

    def __init__(self) -> None:
        try:
            from . import _msgspec
        except ImportError:
            raise TypeError(f"MsgpackCodec {NEEDS_MSGSPEC}") from None
        self._write = _msgspec.write_msgpack
        self._decoder = _msgspec.msgpack_decoder
        self._read = self._decoder(Any)

    def encode(self, value: Any) -> bytes:
        """A binary message from a value.

        Raises:
            CodecError: It is not made of what MessagePack knows, nor of a type that could be
                decoded.
        """
        try:
            return self._write(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(f"cannot be encoded as MessagePack: {_short(error)}") from error

    def decode(self, message: str | bytes) -> Any:
        """A value from a message.

        Raises:
            CodecError: It is not MessagePack; the text does not quote it.
        """
        return self._read(message)

    def decoder(self, annotation: Any) -> Decoder | None:
        """What decodes a message straight into a type; ``None`` for models of pydantic's.

        Raises:
            TypeError: There is no way into this type.
        """
        return None if is_pydantic(annotation) else self._decoder(annotation)


def _fast_reader() -> Decoder | None:
    try:
        from . import _msgspec
    except ImportError:
        return None
    return _msgspec.read_json


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _take_apart(value: Any) -> Any:
    if not is_typed(value):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return library_for(type(value)).to_builtins(value)


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    return str(error)


# Made once: json.dumps and json.loads make them anew for every message.
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_take_apart
)
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
