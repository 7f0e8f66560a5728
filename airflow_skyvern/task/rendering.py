"""
Rejects templates without a value: Jinja would write None as the text "None", and a paid run would use it.

While a task's arguments are rendered, None leaves a mark where a template prints it, joins it to a text, or passes it
to a filter for texts. So a text that says "None" itself stays, and so does ``{{ … | string }}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from functools import wraps
from random import SystemRandom
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Undefined, nodes, pass_context

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.compiler import CodeGenerator

MARK = chr(SystemRandom().randint(0x100000, 0x10FFFD))
"""
Stands for None in a rendered text: a character that Unicode leaves to private use, and that no font or program is
known to use. It is another one in each process, so no text can be written that holds it; and a single one, so that a
slice of a text does not leave a part of it.
"""

MARK_FORMS = (MARK, quote(MARK), json.dumps(MARK)[1:-1], repr(MARK)[1:-1])
"""The mark as it is, and as ``urlencode``, ``tojson`` and a printed list write it in ASCII."""

TEXT_FILTERS = (
    "capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "pprint", "replace", "safe", "striptags",
    "title", "trim", "truncate", "upper", "urlencode", "urlize", "wordwrap",
)  # fmt: skip
"""Jinja's filters that convert any value to text."""

PRINTED = (list, tuple, set, frozenset, ValuesView, ItemsView)
"""Types that Python prints with each of their items."""

GIVEN, EACH_GIVEN = "skyvern_given", "skyvern_each_given"
"""Attributes of the environment: functions that the code of a template calls."""

ADVICE = (
    'it has no value (None), which would be sent as the text "None"; nothing was started. Give it a value, or say '
    "what its absence means: {{ … or '' }}, {{ … | default('x', true) }}, {{ … | tojson }} for null, "
    'or {{ … | string }} for the text "None".'
)


class Absent:
    """
    A value that is None, or contains None, before it becomes part of a text.

    :param value: The value to use if a template renders to a native object instead.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        """Leave the mark in the text."""
        return MARK


def guarded(environment: Environment, *, refuses: bool) -> Environment:
    """
    Return an environment in which None leaves a mark.

    :param refuses: False returns one that renders as before. The environment of a DAG with its own ``finalize`` does
        the same: that function decides about None.
    """
    environment = environment.overlay()
    vars(environment).update({GIVEN: _given, EACH_GIVEN: _each_given})
    if not refuses or environment.finalize is not None:
        return environment
    environment.finalize = _marked
    environment.filters = {**environment.filters, **_filters(environment.filters)}
    environment.code_generator_class = _marking(environment.code_generator_class)
    return environment


def is_guarded(environment: Environment) -> bool:
    """Return whether an environment is one of ours."""
    return hasattr(environment, GIVEN)


def absent_in(name: str, rendered: Any) -> list[str]:
    """Return the paths at which a rendered argument lacks a value; in JSON, those within it."""
    return list(_absent(name, _of_json(rendered)))


def _absent(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if any(form in value for form in MARK_FORMS):
            yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _absent(f"{path}.{str(key).replace(MARK, 'None')}", item)
            if MARK in str(key):
                yield path
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _absent(f"{path}[{index}]", item)


def _of_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else value
    except ValueError:
        return value


def _holds_none(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, dict):
        return any(_holds_none(item) for item in value.values())
    return isinstance(value, PRINTED) and any(_holds_none(item) for item in value)


def _given(value: Any) -> Any:
    return Absent(value) if _holds_none(value) else value


def _each_given(value: Any) -> Any:
    """Mark None among the values that are inserted into a text."""
    if isinstance(value, dict):
        return {name: _given(item) for name, item in value.items()}
    return type(value)(map(_given, value)) if type(value) in (list, tuple) else _given(value)


def _items_given(value: Any) -> Any:
    """Mark None among the joined items, also in a generator such as ``map`` returns."""
    is_joined = isinstance(value, Iterable) and not isinstance(value, str | Mapping | Undefined)
    return list(map(_given, value)) if is_joined else value


@pass_context  # so Jinja calls it while it renders, also for constants
def _marked(_context: Any, value: Any) -> Any:
    return _given(value)


def _filters(known: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    marking = {name: _marking_filter(known[name], _given) for name in TEXT_FILTERS if name in known}
    return {
        **marking,
        "join": _marking_filter(known["join"], _items_given),
        "format": _marking_format(known["format"]),
    }


def _marking_filter(text_filter: Callable[..., Any], given: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a filter that marks a value without changing it; Jinja passes some of them something else first."""
    place = 1 if hasattr(text_filter, "jinja_pass_arg") else 0

    @wraps(text_filter)
    def marking(*args: Any, **more: Any) -> Any:
        value = given(args[place])
        return value if isinstance(value, Absent) else text_filter(*args[:place], value, *args[place + 1 :], **more)

    return marking


def _marking_format(text_format: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(text_format)
    def marking(*args: Any, **more: Any) -> Any:
        return text_format(*_each_given(args), **_each_given(more))

    return marking


def _marking(generator: type[CodeGenerator]) -> type[CodeGenerator]:
    """Return a code generator for templates that marks None in ``a ~ b``, ``"%s" % a`` and ``format``."""

    class Marking(generator):  # type: ignore[valid-type, misc]  # each kind of environment has its own
        def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802  Jinja's name, as below
            parts = [_call(GIVEN, part) for part in node.nodes]
            super().visit_Concat(nodes.Concat(parts, lineno=node.lineno), frame)

        def visit_Mod(self, node: nodes.Mod, frame: Any) -> None:  # noqa: N802
            super().visit_Mod(nodes.Mod(node.left, _call(EACH_GIVEN, node.right), lineno=node.lineno), frame)

        def visit_Call(self, node: nodes.Call, frame: Any, **more: Any) -> None:  # noqa: N802
            if isinstance(node.node, nodes.Getattr) and node.node.attr == "format":
                args = [_call(GIVEN, arg) for arg in node.args]
                kwargs = [nodes.Keyword(item.key, _call(GIVEN, item.value)) for item in node.kwargs]
                more_args = node.dyn_args and _call(EACH_GIVEN, node.dyn_args)
                more_kwargs = node.dyn_kwargs and _call(EACH_GIVEN, node.dyn_kwargs)
                node = nodes.Call(node.node, args, kwargs, more_args, more_kwargs, lineno=node.lineno)
            elif isinstance(node.node, nodes.Getattr) and node.node.attr == "format_map":
                args = [_call(EACH_GIVEN, arg) for arg in node.args]
                node = nodes.Call(node.node, args, node.kwargs, None, None, lineno=node.lineno)
            super().visit_Call(node, frame, **more)

    return Marking


def _call(name: str, argument: nodes.Expr) -> nodes.Call:
    """Return a call of a function of the environment."""
    return nodes.Call(nodes.EnvironmentAttribute(name), [argument], [], None, None, lineno=argument.lineno)
