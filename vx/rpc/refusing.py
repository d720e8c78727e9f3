"""Settings as they are read from a request, and what is said where one of its fields is not taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from vx.errors import Kind, VxError

Settings = Mapping[str, tuple[str, Any]]
"""Setting's name → (path of the entry that counts, its value)."""


def invalid(path: str, text: str) -> NoReturn:
    """The field has a value that makes no sense. VxError(INVALID)."""
    raise VxError(Kind.INVALID, text, field=path)


def unsupported(path: str, text: str) -> NoReturn:
    """The field asks for what this server doesn't have. VxError(UNSUPPORTED)."""
    raise VxError(Kind.UNSUPPORTED, text, field=path)


def bad_enum(path: str, value: int, kind: type) -> NoReturn:
    """The field has no value of the enumeration `kind`. VxError(INVALID)."""
    signed = (value + 2**31) % 2**32 - 2**31  # betterproto reads a negative one as if it had no sign
    name = re.sub(r"(?<=[a-z0-9])E(?=[A-Z])", ".E", kind.__name__)  # and names a nested one without the contract's dot
    invalid(path, f"{signed} is not a value of {name}")


def one_of(settings: Settings, name: str, known: Mapping[int, Any], kind: type, default: Any) -> Any:
    """What the setting's value of the enumeration `kind` stands for; the default where there is no such setting.

    VxError(INVALID).
    """
    if name not in settings:
        return default
    path, value = settings[name]
    if value not in known:
        bad_enum(path, value, kind)
    return known[value]
