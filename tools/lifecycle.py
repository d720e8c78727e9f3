"""Draws the table of vx.session.lifecycle as a Mermaid picture into docs/sessions.md. Run tools/lifecycle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vx.model import State
from vx.session.lifecycle import FIRST, TRANSITIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sessions.md"
BEGIN = "<!-- tools/lifecycle draws this from vx/session/lifecycle.py -->\n"
END = "<!-- end of what tools/lifecycle draws -->\n"


def draw() -> str:
    """The picture. Events that change nothing (StopSession of what has ended) are left out."""
    last = State.FORGOTTEN
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), after in TRANSITIONS.items():
        if after is not state:
            arrows.setdefault((state, after), []).append(event.value)
    lines = [f"    [*] --> {FIRST.value}"]
    for (state, after), events in arrows.items():
        lines.append(f"    {state.value} --> {'[*]' if after is last else after.value}: {', '.join(events)}")
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""])


def redraw(page: str) -> str:
    """The page with the picture of today. ValueError where the markers are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} has not the lines {BEGIN.strip()} and {END.strip()}")
    return before + begin + draw() + end + after


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/lifecycle", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where it is out of date")
    arguments = parser.parse_args()
    old = PAGE.read_text("utf-8")
    new = redraw(old)
    if not arguments.check:
        PAGE.write_text(new, "utf-8")
    elif new != old:
        print("docs/sessions.md's picture is out of date: run tools/lifecycle and commit.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
