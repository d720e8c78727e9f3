"""How mistakes in the file are told."""

from __future__ import annotations

import json

from vx.errors import Kind, VxError


class ConfigError(VxError):
    """The configuration cannot be used. `problems` has one line for each mistake; the text is these lines."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(Kind.INVALID, "\n".join(problems))
        self.problems = tuple(problems)


def shown(value: object) -> str:
    """The value as TOML would write it, cut to a sane length."""
    if isinstance(value, dict):
        return "a table"
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."
