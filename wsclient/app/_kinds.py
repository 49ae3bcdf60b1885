"""Which messages a type is for, as far as the type itself says."""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import Any, Literal

from ._annotation import bare, members_of, name_of
from ._library import is_model


def kinds_of(annotation: Any, *, key: str) -> tuple[str, ...] | None:
    """The values of the field ``key`` with which a message is one of this type.

    A msgspec Struct says it by its tag, if that is in the field ``key``; any class by a field of
    this name that is annotated with ``Literal["trade"]``; a union if all of its members do.

    Returns:
        Each once, in the order in which the type has them; ``None`` if the type does not say.

    Raises:
        TypeError: What the type's own annotations name is not there.
    """
    kinds: dict[str, None] = {}
    for member in members_of(annotation):
        if member is types.NoneType:
            continue  # A message that is `null` has no fields.
        found = _kinds_of_class(typing.get_origin(member) or member, key)
        if not found:
            return None
        kinds.update(dict.fromkeys(found))
    return tuple(kinds) or None


def _kinds_of_class(cls: Any, key: str) -> list[str]:
    config = getattr(cls, "__struct_config__", None)
    if config is not None and config.array_like:
        return []  # Its messages are arrays, in which no field has a name.
    if config is not None and config.tag_field == key:
        return [config.tag] if isinstance(config.tag, str) else []
    values = _literals(_field_type(cls, key))
    # A message's type is text.
    return values if all(isinstance(value, str) for value in values) else []


def _field_type(cls: Any, key: str) -> Any:
    """What the field that is called ``key`` in a message holds."""
    try:
        if hasattr(cls, "__struct_config__"):
            from . import _msgspec

            return _msgspec.field_type(cls, key)
        if is_model(cls):
            from . import _pydantic

            return _pydantic.field_type(cls, key)
        if _has_fields(cls, key):
            return typing.get_type_hints(cls)[key]
    except NameError as error:
        raise TypeError(f"the annotations in {name_of(cls)} cannot be resolved: {error}") from error
    return None


def _has_fields(cls: Any, key: str) -> bool:
    if typing.is_typeddict(cls):
        return key in cls.__annotations__
    if hasattr(cls, "__attrs_attrs__"):
        return any(key == field.name for field in cls.__attrs_attrs__)
    return key in getattr(cls, "__dataclass_fields__", {})


def _literals(annotation: Any) -> list[Any]:
    annotation = bare(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return _literals(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is not Literal:
        return []
    values = typing.get_args(annotation)
    return [value.value if isinstance(value, Enum) else value for value in values]
