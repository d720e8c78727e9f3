"""A fake server and a way to run `vx` against it, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.fake import Script, serving
from vx.cli.calling import Surroundings
from vx.cli.commands import vx
from vx.timestamps import parse_timestamp

NOW_US = parse_timestamp("20260511T090000")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that does what `script` says."""
    with serving(script, tmp_path_factory.mktemp("s")) as address:
        yield address


@pytest.fixture
def pauses() -> list[float]:
    """How long the client waited each time; it doesn't really wait."""
    return []


@pytest.fixture
def run(pauses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `vx` with these arguments, in an empty current folder. Any exception that gets out fails the test."""
    monkeypatch.chdir(tmp_path)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    def invoke(*args: str) -> Result:
        surroundings = Surroundings(now_us=lambda: NOW_US, pause=pause)
        return CliRunner().invoke(vx, args, obj=surroundings, catch_exceptions=False)

    return invoke
