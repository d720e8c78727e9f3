"""From the file to a `Config`, or to a list of all its mistakes.

`load(path)` is the way in. A mistake is told with the key's path, the value that stands there and what is allowed.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from vx.config.conflicts import find_conflicts
from vx.config.mistakes import ConfigError, shown
from vx.config.rules import Rule
from vx.config.schema import Config


def load(path: str | os.PathLike[str]) -> Config:
    """Read and check a configuration file. ConfigError has every mistake in it (of the syntax, the first one)."""
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"not UTF-8 text (at line {line})"]) from None
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    return parse(text)


def parse(text: str) -> Config:
    """`load` of a text."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {text.count(chr(10)) + 1}, the last one"
        raise ConfigError([f"not TOML: {str(error).replace('at end of document', last)}"]) from None
    problems: list[str] = []
    config = read_table(Config, raw, "", problems)
    if config is not None:
        problems = find_conflicts(config)
    if config is None or problems:
        raise ConfigError(problems)
    return config


_T = TypeVar("_T", bound=msgspec.Struct)


def read_table(struct: type[_T], raw: Mapping[str, Any], path: str, problems: list[str]) -> _T | None:
    """Make a `struct` of a TOML table; None, and a line for each mistake in `problems`, where that cannot be."""
    before = len(problems)
    values: dict[str, Any] = {}
    hints = _hints(struct)
    for field in msgspec.structs.fields(struct):
        if field.name in raw:
            values[field.name] = _read(hints[field.name], raw[field.name], path + field.name, problems)
        elif field.required:
            problems.append(f"{path}{field.name}: is missing; allowed is {_rule(hints[field.name]).allowed}")
    problems += [_unknown(key, path, hints) for key in raw if key not in hints]
    return struct(**values) if len(problems) == before else None


def _read(hint: Any, value: object, path: str, problems: list[str]) -> Any:
    """The value at `path` as the field's type says, which is a rule, a table, or a list of either."""
    if get_origin(hint) in (types.UnionType, Union):
        hint = get_args(hint)[0]  # what may be missing altogether
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        if not isinstance(value, list):
            problems.append(f"{path}: {shown(value)} is not a list; {_how_to_list(item, path)}")
            return None
        return tuple(_read(item, each, f"{path}[{index}]", problems) for index, each in enumerate(value))
    if isinstance(hint, type):
        if not isinstance(value, dict):
            how = "write [[...]]" if path.endswith("]") else f"write [{path}]"
            problems.append(f"{path}: {shown(value)} is not a table; {how} and its keys below")
            return None
        return read_table(hint, value, f"{path}.", problems)
    rule = _rule(hint)
    try:
        return rule.read(value)
    except ValueError as error:
        if rule.tells_all and error.args:
            problems.append(f"{path}: {error}")
            return None
        reason = f" ({error})" if error.args else ""
        problems.append(f"{path}: {shown(value)} is not allowed{reason}; allowed is {rule.allowed}")
        return None


@functools.cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _rule(hint: Any) -> Rule:
    rule = get_args(hint)[1]
    assert isinstance(rule, Rule)
    return rule


def _how_to_list(item: Any, path: str) -> str:
    if isinstance(item, type):
        header = re.sub(r"\[[0-9]+\]", "", path)
        return f"write [[{header}]] and its keys below"
    return f"allowed is a list, each item {_rule(item).allowed}"


def _unknown(key: str, path: str, hints: Mapping[str, Any]) -> str:
    import difflib  # only for mistakes

    path += key if key.isprintable() else repr(key)
    near = difflib.get_close_matches(key, hints, n=1)
    if near:
        return f'{path}: unknown key; did you mean "{near[0]}"?'
    if key in _hints(Config):
        # In TOML a key after a [table] header belongs to that table, wherever it was meant to be.
        return f"{path}: unknown key here; it belongs at the top of the file, above the first [table]"
    return f"{path}: unknown key; known are {', '.join(hints)}"
