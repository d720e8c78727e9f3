"""What tests of several parts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.server_process import ServerProcess, started_servers
from tests.stubs import Stubs

# An example's time says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("vx", deadline=None)
hypothesis.settings.load_profile("vx")


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    return Stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[str], ServerProcess]]:
    """Starts `vx serve` processes: `start_server(toml)`; they are ended with the test."""
    with started_servers(tmp_path) as start:
        yield start
