"""Messages and events as JSON objects, one a line.

Each has an ``event``.  For a message this is ``message``, with ``text``, or with ``base64`` for a
binary one.  For everything else it is the name of a class of wsclient's events in lower case with
underscores (``connection_lost``), with that class' fields.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import attrs

import wsclient


def message_object(message: str | bytes) -> dict[str, Any]:
    """A message."""
    if isinstance(message, str):
        return {"event": "message", "text": message}
    return {"event": "message", "base64": base64.b64encode(message).decode("ascii")}


def event_object(event: wsclient.Event) -> dict[str, Any]:
    """An event, with all its fields."""
    return {"event": _snake_case(type(event).__name__), **_fields(event)}


def json_line(values: Mapping[str, Any]) -> str:
    """An object as one line of ASCII, which no terminal can take for a command."""
    return json.dumps(values, ensure_ascii=True)


def _fields(value: attrs.AttrsInstance) -> dict[str, Any]:
    fields: Iterable[attrs.Attribute[Any]] = attrs.fields(type(value))
    return {field.name: _shown(getattr(value, field.name), field) for field in fields}


def _shown(value: Any, field: attrs.Attribute[Any]) -> Any:
    # What an event does not show itself is not shown here.
    return field.repr(value) if callable(field.repr) and value is not None else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, float):
        return round(value, 6)
    if attrs.has(type(value)):
        return _fields(value)
    # A subscription's key and positions are whatever the program has made of them.
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
