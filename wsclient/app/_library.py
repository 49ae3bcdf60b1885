"""Which library knows a type: pydantic its own models, msgspec all others.

Neither is a dependency.
Each is imported when it is needed, by the one file that uses it: whoever has a pydantic model has
pydantic, and what needs msgspec says so where a handler is registered.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Annotated, Any, Final, Protocol

from ._annotation import bare, name_of

Decoder = Callable[[str | bytes], Any]
"""Makes a value of a message; raises ``CodecError``."""

NEEDS_MSGSPEC: Final = "needs msgspec: pip install 'wsclient-trio[msgspec]'"


class Library(Protocol):
    """What is asked of either."""

    def json_decoder(self, annotation: Any, read: Decoder) -> Decoder:
        """Decodes JSON into a type.

        Args:
            annotation: The type.
            read: What the codec makes of a message without a type. It judges what is JSON,
                wherever the library seems to see it otherwise.

        Raises:
            TypeError: The library cannot.
        """

    def converter(self, annotation: Any) -> Callable[[Any], Any]:
        """Makes a value of a type from builtin ones; raises ``CodecError``.

        Raises:
            TypeError: The library cannot.
        """

    def to_builtins(self, value: Any) -> Any:
        """What is to be written as JSON for a value of a type of the library's."""


def is_pydantic(annotation: Any) -> bool:
    """Whether a model of pydantic's is in it, or what it adds to other types."""
    annotation = bare(annotation)
    return (
        is_model(annotation)
        or is_for_pydantic(annotation)
        or any(map(is_pydantic, typing.get_args(annotation)))
    )


def is_for_pydantic(annotation: Any) -> bool:
    """Whether pydantic's ``Field``, or the like, is added to it."""
    if typing.get_origin(annotation) is not Annotated:
        return False
    return any(type(each).__module__.startswith("pydantic.") for each in annotation.__metadata__)


def is_model(cls: Any) -> bool:
    """Whether it is a class of pydantic's: a model, or a dataclass."""
    # A generic model with its arguments is a class as well.
    return isinstance(cls, type) and hasattr(cls, "__pydantic_validator__")


def library_for(annotation: Any) -> Library:
    """The library that decodes into it.

    Raises:
        TypeError: It is not installed.
    """
    if is_pydantic(annotation):
        from . import _pydantic

        return _pydantic
    try:
        from . import _msgspec
    except ImportError:
        raise TypeError(f"to decode into {name_of(annotation)} {NEEDS_MSGSPEC}") from None
    return _msgspec


def is_typed(value: object) -> bool:
    """Whether it is of a type that a library knows how to take apart."""
    marks = ("__struct_config__", "__attrs_attrs__", "__dataclass_fields__")
    cls = type(value)
    return is_model(cls) or any(hasattr(cls, mark) for mark in marks)
