"""What a parameter is annotated with, in whatever way that is written."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, NewType, Union


def annotation_of(handler: Callable[..., Any], parameter: str) -> Any:
    """What the parameter of this name is annotated with; ``Any`` if with nothing.

    Annotations that are text, as all are after ``from __future__ import annotations``, are looked
    up, this one only: what the others name may be imported for type checkers alone.

    Raises:
        TypeError: It names what is not there.
    """
    annotation = inspect.signature(handler).parameters[parameter].annotation
    if annotation is inspect.Parameter.empty:
        return Any
    function = _function(handler)
    # Any object with annotations will do for get_type_hints.
    one = SimpleNamespace(__annotations__={parameter: annotation})
    try:
        hints = typing.get_type_hints(
            one, getattr(function, "__globals__", {}), include_extras=True
        )
    except Exception as error:
        # Not the handler's repr: a partial's shows its arguments.
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        # The text of an annotation may be anything.
        raise TypeError(
            f"the annotation {annotation!r} of {name}'s parameter {parameter!r}"
            f" cannot be resolved: {error}; what it names must be there at run time, in the"
            " module of the handler"
        ) from error
    return hints[parameter]


def _function(handler: Callable[..., Any]) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    handler = inspect.unwrap(handler)
    if inspect.isroutine(handler):
        return handler
    called = "__init__" if isinstance(handler, type) else "__call__"
    return getattr(handler if isinstance(handler, type) else type(handler), called)


def name_of(annotation: Any) -> str:
    """How it is called in a text for people."""
    members = members_of(annotation)
    if len(members) > 1:
        return " | ".join(map(name_of, members))
    (member,) = members
    origin = typing.get_origin(member)
    if member is types.NoneType:
        return "None"
    if origin is typing.Literal:
        return str(member).removeprefix("typing.")
    if origin is None:
        return getattr(member, "__qualname__", str(member))
    return f"{name_of(origin)}[{', '.join(map(name_of, typing.get_args(member)))}]"


def bare(annotation: Any) -> Any:
    """The annotation without other names for it: aliases and ``NewType``."""
    while True:
        if annotation is inspect.Parameter.empty:
            return Any
        if annotation is None:
            return types.NoneType
        if isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …`; new in 3.12
            annotation = annotation.__value__
        else:
            return annotation


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, each without what ``Annotated`` adds; one type if it is none."""
    annotation = bare(annotation)
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return members_of(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(member for each in typing.get_args(annotation) for member in members_of(each))
    return (annotation,)
