"""What a bot's messages look like on the wire."""

from __future__ import annotations

import json
from typing import Any, Protocol

from wsclient.errors import CodecError


class Codec(Protocol):
    """Turns values into messages and back."""

    def encode(self, value: Any) -> str | bytes:
        """A message from a value.

        Raises:
            CodecError: The value has no such form.
        """

    def decode(self, message: str | bytes) -> Any:
        """A value from a message.

        Raises:
            CodecError: The message is not of this form.
        """


class JsonCodec:
    """JSON (RFC 8259) in text messages, by the standard library.

    Decoding takes UTF-8 in binary messages, too.
    Both refuse ``NaN`` and ``Infinity``, which are not JSON; encoding refuses lone surrogates,
    which are not text.
    """

    def encode(self, value: Any) -> str:
        """A text message from a value.

        Raises:
            CodecError: It is not made of what JSON knows.
        """
        try:
            message = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            message.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"cannot be encoded as JSON: {_short(error)}") from error
        return message

    def decode(self, message: str | bytes) -> Any:
        """A value from a message.

        Raises:
            CodecError: It is not JSON; the text says where, and does not quote it.
        """
        try:
            return json.loads(message, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise CodecError(f"not JSON: {_short(error)}") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not valid UTF-8"
    return str(error)
