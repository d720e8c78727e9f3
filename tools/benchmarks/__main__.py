"""The command line of tools/bench."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tools.benchmarks import harness, live, media, pictures, sessions, transport, virtual
from tools.benchmarks.harness import NO, BenchError, Row, note

WHOLE: dict[str, Callable[[int], list[Row]]] = {
    "media": media.media,
    "pictures": pictures.pictures,
    "sessions": sessions.sessions,
    "live": live.live,
}
"""Parts that have servers and material of their own, beside `virtual`."""
PARTS = [*transport.PARTS, *WHOLE, "virtual"]


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)  # so that every `with` is left, and no process stays
    signal.signal(signal.SIGHUP, _end)
    parts = PARTS if arguments.part == "all" else [arguments.part]
    if any(part in transport.PARTS for part in parts) and not shutil.which("h2load"):
        raise SystemExit("h2load is needed; on Debian, as root: apt-get install nghttp2-client")
    machine = harness.describe_machine()
    begin = time.monotonic()
    failed = False
    rows: list[Row] = []
    try:
        with contextlib.ExitStack() as stack:

            @functools.cache
            def bench() -> transport.Bench:
                return stack.enter_context(transport.open_bench(arguments.rounds))

            if not arguments.profile:
                _print_header(machine, arguments.rounds)
            for part in parts:
                try:
                    if arguments.profile:
                        print(media.profile() if part == "media" else transport.profile(bench(), part))
                        continue
                    if part == "virtual":
                        found = virtual.virtual(arguments.rounds, arguments.only)
                    else:
                        found = WHOLE[part](arguments.rounds) if part in WHOLE else transport.PARTS[part](bench())
                except BenchError as error:
                    failed = True
                    note(f"tools/bench {part}: {error}")
                    continue
                rows += found
                print(f"\n{harness.table(found)}", flush=True)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if rows:
        missed = [f"{row.what}, {row.unit}" for row in rows if row.verdict == NO]
        print(f"\nNot reached: {'; '.join(missed)}" if missed else "\nEvery bound that was measured is reached")
    if arguments.json:
        records = {"machine": machine, "rounds": arguments.rounds, "rows": [row.record() for row in rows]}
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    note(f"({time.monotonic() - begin:.0f} s)")
    raise SystemExit(failed)


def _print_header(machine: dict[str, str], rounds: int) -> None:
    for name, text in machine.items():
        print(f"{name}: {text}")
    print(f"{rounds} rounds; medians, and in brackets the range over the rounds", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measures vx against its peers on this machine.")
    parser.add_argument("part", nargs="?", default="all", choices=[*PARTS, "all"])
    parser.add_argument("--rounds", type=int, default=5, help="how often each server has its turn (default: 5)")
    parser.add_argument("--profile", action="store_true", help="instead: what vx spends its time with, by cProfile")
    parser.add_argument("--only", default="", metavar="TEXT", help='of virtual: sets with this in their name: "10 s"')
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured value to FILE as well")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


main()
