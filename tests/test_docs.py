"""README and docs/ against the code: links lead somewhere, and each key of the configuration has its true default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vx.config.schema import Config, Tls

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"https?://", link):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text("utf-8"))
            assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], link


def keys(struct: type[msgspec.Struct], table: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that may stand in a file once and may be left out, with their defaults."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.default, msgspec.Struct):
            yield from keys(type(field.default), f"[{field.name}] ")
        elif not field.required:
            yield table + field.name, field.default


def test_each_key_is_told_with_its_default() -> None:
    rows = re.findall(r"(?m)^\| `([^|]*)` \| (\S*) \|", (ROOT / "docs" / "configuration.md").read_text("utf-8"))
    told = {key: None if value == "none" else tomllib.loads(f"it = {value.strip('`')}")["it"] for key, value in rows}
    assert len(told) == len(rows)
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in keys(Config)}
    for elsewhere in ("listen", "camera", "agent", "user", "role", "tls"):
        del defaults[elsewhere]
    assert told == defaults | {f"[tls] {field}": None for field in Tls.__struct_fields__}
