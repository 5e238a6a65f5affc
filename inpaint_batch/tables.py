"""What a TOML file says, or JSON, as the dataclass that it is meant for: every name and every type is checked."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from inpaint_batch.errors import ConfigError

_THE_FILE = "the file"
_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
TableT = TypeVar("TableT")


def read_as(kind: type[TableT], values: Any) -> TableT:
    """`values`, a table, as the dataclass `kind`, tables in it as the dataclasses that its fields are annotated with.

    Fields may be text, numbers, true or false, literals, tuples of these, and each of them or None. Raises ConfigError
    that says where a name is unknown or missing, or a value has another type; and what the dataclasses raise.
    """
    table: TableT = _read_table(kind, values, _THE_FILE, kind)
    return table


def _read(kind: Any, value: Any, where: str, root: Any) -> Any:
    inner = get_args(kind)
    if is_dataclass(kind):
        return _read_table(kind, value, where, root)
    if get_origin(kind) is UnionType:  # with None; TOML cannot say that, JSON can
        return None if value is None else _read(inner[0], value, where, root)
    if get_origin(kind) is Literal:
        if value not in inner:
            raise ConfigError(f"{where} must be {' or '.join(inner)}, not {value!r}")
        return value
    if get_origin(kind) is tuple:
        many = inner[-1] is Ellipsis
        if not isinstance(value, list | tuple) or (not many and len(value) != len(inner)):
            raise ConfigError(f"{where} must be a list{'' if many else f' of {len(inner)}'}, not {value!r}")
        return tuple(_read(inner[0], item, f"{where}[{index}]", root) for index, item in enumerate(value))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} must be {_NAMES[kind]}, not {value!r}")
    return value


def _read_table(kind: Any, value: Any, where: str, root: Any) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table, not {value!r}")
    hints = get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ConfigError(f"{where} has an unknown key {name!r}; {_hint(name, hints, root)}")
    for each in fields(kind):
        if each.name not in value and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{where} lacks {each.name!r}")
    within = "" if where == _THE_FILE else where + "."
    return kind(**{name: _read(hints[name], item, within + name, root) for name, item in value.items()})


def _hint(name: str, known: dict[str, Any], root: Any) -> str:
    """What to do about a name that is unknown where it stands: most often it stands in the wrong table."""
    outermost = get_type_hints(root)
    if name in outermost:
        return "it belongs above all tables"
    for table, kind in outermost.items():
        if is_dataclass(kind) and name in get_type_hints(kind):
            return f"it belongs in the table [{table}]"
    nearest = get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}?" if nearest else "known are " + ", ".join(known)
