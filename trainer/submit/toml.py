"""Tables as TOML text (https://toml.io/en/v1.0.0); `tomllib` only reads."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def dumps(table: Mapping[str, Any]) -> str:
    """The text that `tomllib.loads` reads back as an equal table.

    Raises `TypeError` for a value that TOML has no type for.
    """
    return "\n".join(_lines(table, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    arrays = {key: value for key, value in table.items() if _is_array_of_tables(value)}
    for key, value in table.items():
        if key not in tables and key not in arrays:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in tables.items():
        inner = (*path, key)
        yield ""
        yield f"[{'.'.join(map(_key, inner))}]"
        yield from _lines(value, inner)
    for key, rows in arrays.items():
        inner = (*path, key)
        for row in rows:
            yield ""
            yield f"[[{'.'.join(map(_key, inner))}]]"
            yield from _lines(row, inner)


def _is_array_of_tables(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(entry, Mapping) for entry in value)
    )


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | int | float):
        return _number(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_key(key)} = {_value(entry)}" for key, entry in value.items())
        return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"TOML has no type for {type(value).__name__}")


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _number(number: float) -> str:
    if isinstance(number, bool):
        return "true" if number else "false"
    return repr(number)  # also inf, -inf and nan, which TOML writes alike
