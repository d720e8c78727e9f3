"""What the client says: lines and progress bars on stderr, results on stdout, as text or as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import betterproto
import click

from vx.cli.values import plain, show_size, show_wire_time
from vx.rpc.generated.axxonsoft.bl import mmexport

Advance = Callable[[float, str], None]
"""Told how much of the total is done, and a few words to show beside the bar."""


class Report:
    """Where the client's words go. `quiet`: a program reads along, so only warnings are said; no bars then either."""

    def __init__(self, *, quiet: bool, terminal: bool) -> None:
        self._quiet = quiet
        self._bars = terminal and not quiet

    @property
    def has_bars(self) -> bool:
        """`progress` shows something."""
        return self._bars

    def say(self, text: str) -> None:
        """Tell a person how it goes."""
        if not self._quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Tell even a program that something went another way than it was asked to."""
        click.echo(f"vx: {text}", err=True)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Advance]:
        """A bar while the block runs, on a terminal; nothing elsewhere."""
        if not self._bars:
            yield lambda done, note: None
            return
        # rich takes 60 ms to load; most commands never show a bar.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False) as bars:
            bar = bars.add_task(title, total=total, note="")
            yield lambda done, note: bars.update(bar, completed=min(done, total), note=note)


def print_json(document: object) -> None:
    """The one document of a command with --json."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def state_document(session_id: str, state: mmexport.State) -> dict[str, Any]:
    """A session's state with the contract's names and forms."""
    return {
        "session_id": session_id,
        "state": state_name(state),
        "last_frame_timestamp": state.last_frame_timestamp,
        "result": {"succeeded": state.result.succeeded, "files": [file_document(file) for file in state.result.files]},
    }


def file_document(file: mmexport.ResultFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "size": file.size,
        "min_timestamp": file.min_timestamp,
        "max_timestamp": file.max_timestamp,
        "mime_type": file.mime_type,
        "timezone": file.timezone,
    }


def state_name(state: mmexport.State) -> str:
    """`S_RUNNING`; the number where this client doesn't know it."""
    return getattr(state.state, "name", None) or str(int(state.state))


def state_lines(session_id: str, state: mmexport.State) -> list[str]:
    """A session's state for people."""
    lines = [f"session     {plain(session_id)}", f"state       {_words(state)}"]
    lines.append(f"last frame  {show_wire_time(state.last_frame_timestamp)}")
    lines += [f"file        {file_line(file)}" for file in state.result.files]
    return lines


def file_line(file: mmexport.ResultFile) -> str:
    """`Entrance.mp4, 12.3 MB, 2026-05-11 08:04:10 UTC to 2026-05-11 08:14:11 UTC`."""
    first, last = show_wire_time(file.min_timestamp), show_wire_time(file.max_timestamp)
    return f"{plain(file.path)}, {show_size(file.size)}, {first if first == last else f'{first} to {last}'}"


def _words(state: mmexport.State) -> str:
    name = state_name(state)
    if name == "S_COMPLETED":
        return f"{name}, {'succeeded' if state.result.succeeded else 'failed'}"
    return name


def session_document(info: mmexport.ListSessionsResponseSessionInfo) -> dict[str, Any]:
    """A row of ListSessions."""
    options = info.session.options
    mode, what = betterproto.which_one_of(options, "mode")
    start, end = (what.start_timestamp, what.end_timestamp) if isinstance(what, mmexport.ArchiveMode) else ("", "")
    return {
        **state_document(info.session.id, info.state),
        "mode": mode,
        "output_type": betterproto.which_one_of(options, "output_type")[0],
        "sources": [source.origin for source in what.sources] if what is not None else [],
        "start_timestamp": start,
        "end_timestamp": end,
    }


def session_table(infos: Iterable[mmexport.ListSessionsResponseSessionInfo]) -> list[str]:
    """All sessions for people, a line each under a heading."""
    rows: list[Sequence[str]] = [("SESSION", "STATE", "KIND", "LAST FRAME", "FILES", "SIZE", "START", "CAMERAS")]
    for info in infos:
        row = session_document(info)
        files = info.state.result.files
        rows.append(
            (
                plain(info.session.id),
                _words(info.state),
                f"{row['mode']} {row['output_type']}".strip() or "-",
                show_wire_time(info.state.last_frame_timestamp),
                str(len(files)),
                show_size(sum(file.size for file in files)),
                show_wire_time(row["start_timestamp"]),
                plain(", ".join(row["sources"])) or "-",
            )
        )
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns; the first one is their heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
