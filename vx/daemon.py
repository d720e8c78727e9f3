"""The server as a process: its configuration, its log, its exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def serve(config_file: str) -> None:
    """Serve until told to end. SystemExit where the server can't start or go on."""
    from vx.config.reading import load
    from vx.logs import set_up

    with told_and_ended(config_file):
        config = load(config_file)
        set_up(config.log.level, config.log.format)
        from vx.app import run

        run(config, lambda: load(config_file))


@contextmanager
def told_and_ended(config_file: str) -> Iterator[None]:
    """What is wrong with the configuration ends the process with 2, any other expected failure of the block with 1."""
    from vx.config.mistakes import ConfigError
    from vx.errors import VxError

    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            print(f"{config_file}: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    except VxError as error:
        print(f"vx: {error}", file=sys.stderr)
        raise SystemExit(1) from None
