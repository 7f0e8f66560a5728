"""
The types of an endpoint's arguments as a model can fill them: a list, a mapping, a text, a number, or true and false.

Airflow's toolset for hooks reads the annotations of a method, and knows only these types: it treats any other
annotation as "anything", and a text could pass for a list of letters.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import IO, Any, Literal, Union, get_args, get_origin, get_type_hints


@cache
def plain_annotations(endpoint: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of an endpoint's arguments in plain types, except types that only type checkers know."""
    return {name: hint for name in endpoint.__annotations__ if (hint := _hint_of(endpoint, name)) is not None}


def _hint_of(endpoint: Callable[..., Any], name: str) -> Any:
    holder = types.SimpleNamespace(__annotations__={name: endpoint.__annotations__[name]})
    try:
        hint = get_type_hints(holder, globalns=getattr(endpoint, "__globals__", {}))[name]
    except NameError:  # imported for type checkers only
        return endpoint.__annotations__[name]
    return plain(hint)


def plain(hint: Any) -> Any:
    """Return the plain type that stands for another one."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return reduce(or_, dict.fromkeys(type(value) for value in arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any]
    if isinstance(origin, type) and origin is not type and hasattr(origin, "__iter__") and len(arguments) == 1:
        return list[plain(arguments[0])]  # type: ignore[misc]  # the type is known when this runs
    return str if hint is Path else hint


def _union(arguments: tuple[Any, ...]) -> Any:
    """Unite the remaining types: a model cannot pass an open file."""
    kinds = dict.fromkeys(plain(argument) for argument in arguments if get_origin(argument) is not IO)
    return reduce(or_, kinds)
