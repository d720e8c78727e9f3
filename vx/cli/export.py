"""An export from its start to the files on this disk, and what an interrupt does on the way."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import betterproto

from vx.cli.client import Backoff, Client, ClientError, Exit
from vx.cli.download import Moved, download
from vx.cli.report import Advance, Report, file_document, file_line, state_name
from vx.cli.told import failures, progress_note, report_document, shortcomings
from vx.cli.values import local_names, plain, show_size, show_wire_time
from vx.rpc.generated.axxonsoft.bl import mmexport
from vx.timestamps import format_timestamp, parse_timestamp

FIRST_POLL_S = 0.1
LONGEST_POLL_S = 0.5


@dataclass(frozen=True)
class Order:
    """What to export, and what to do with it."""

    options: mmexport.Options
    start_us: int
    end_us: int
    """Of what is asked for, to show how far it is; equal for a snapshot."""
    folder: Path
    force: bool
    keep: bool
    server_option: str
    """` --server …` for commands that are suggested, empty for the default server."""

    @property
    def is_live(self) -> bool:
        """An interrupt is how it ends: what was written is fetched all the same."""
        return betterproto.which_one_of(self.options, "mode")[0] == "live"


def archive_mode(origins: Sequence[str], *, storage: str, start_us: int, end_us: int) -> mmexport.ArchiveMode:
    """What was recorded of these cameras."""
    return mmexport.ArchiveMode(
        sources=[
            mmexport.ArchiveModeSource(origin=origin, storages=[storage] if storage else []) for origin in origins
        ],
        start_timestamp=format_timestamp(start_us),
        end_timestamp=format_timestamp(end_us),
    )


def live_mode(origins: Sequence[str], duration_us: int = 0) -> mmexport.LiveMode:
    """What these cameras show from now on; 0: until the session is stopped."""
    sources = [mmexport.LiveModeSource(origin=origin) for origin in origins]
    return mmexport.LiveMode(sources=sources, duration=timedelta(microseconds=duration_us))


def export_options(
    mode: mmexport.ArchiveMode | mmexport.LiveMode,
    *,
    comment: str,
    container: Literal["mp4", "mkv", "jpeg", "pdf"],
    reject_audio: bool = False,
    max_file_size: int = 0,
    password: str = "",
) -> mmexport.Options:
    """StartSession's options; by its `container` it is a clip or a snapshot."""
    options = mmexport.Options(live=mode) if isinstance(mode, mmexport.LiveMode) else mmexport.Options(archive=mode)
    settings = [mmexport.CommonSetting(comment=comment)] if comment else []
    if container in ("jpeg", "pdf"):
        form = mmexport.SnapshotTypeEFormat.PDF if container == "pdf" else mmexport.SnapshotTypeEFormat.JPEG
        options.snapshot = mmexport.SnapshotType(format=form)
        options.settings = settings
        return options
    options.stream = mmexport.StreamType(
        format=mmexport.StreamTypeEFormat.MKV if container == "mkv" else mmexport.StreamTypeEFormat.MP4,
        settings=[
            *([mmexport.StreamSetting(reject_audio=True)] if reject_audio else []),
            *([mmexport.StreamSetting(password=password)] if password else []),
        ],
    )
    options.settings, options.max_file_size = settings, max_file_size
    return options


async def export(client: Client, order: Order, report: Report) -> dict[str, Any]:
    """Run an export and fetch its files; the document of what came of it.

    ClientError where anything went wrong. Cancelled (Ctrl-C), it stops the session on the server and says what is left
    there; cancelled again, it leaves at once.
    """
    _make_folder(order.folder)
    session_id = await _start(client, order, report)
    report.say(f"session {plain(session_id)} started")
    try:
        state = await _follow(client, session_id, order, report)
    except asyncio.CancelledError:
        if not order.is_live:
            await _give_up(client, session_id, order, report)
            raise
        state = await _end(client, session_id, order, report)
    except ClientError as error:
        if error.status is Exit.NOT_FOUND:
            raise
        text = f"{error}; session {session_id} may still be running: {_commands(session_id, order)}"
        raise ClientError(text, error.status, code=error.code) from None
    kept = f"session {plain(session_id)} is kept: {_commands(session_id, order)}"
    files = state.result.files
    try:
        saved = await fetch(client, session_id, state, order.folder, force=order.force, resume=False, report=report)
    except asyncio.CancelledError:
        report.warn(f"interrupted; {kept}")
        raise
    except ClientError as error:
        # Another try can have them: the session must not go.
        raise ClientError(f"{error}; {kept}", error.status, code=error.code) from None
    told = await client.until_it_works(lambda: client.report(session_id), Backoff())
    for line in shortcomings(told) if told is not None else []:
        report.say(line)
    if not order.keep:
        await client.until_it_works(lambda: client.destroy(session_id), Backoff())
    reason = "" if told is None else told.reason
    document = {
        "session_id": session_id,
        "succeeded": state.result.succeeded,
        "reason": reason,
        "kept": order.keep,
        "files": saved,
        **({} if told is None else {"report": report_document(told)}),
    }
    if not files:
        nothing = "no camera showed anything" if order.is_live else "perhaps nothing was recorded at that time"
        raise ClientError(f"the export wrote nothing: {reason or nothing}", document=document)
    if not state.result.succeeded:
        text = f"the export failed on the server{f' ({reason})' if reason else ''}; the files hold what it could write"
        raise ClientError(text, document=document)
    for failure in failures(told) if told is not None else []:
        report.warn(failure)
    return document


async def fetch(
    client: Client,
    session_id: str,
    state: mmexport.State,
    folder: Path,
    *,
    force: bool,
    resume: bool,
    report: Report,
) -> list[dict[str, Any]]:
    """Download all files of a completed session into `folder`; a document for each, with `saved_as`.

    With `resume`, a file that is there under its name and in its full size counts as downloaded by an earlier try.
    """
    files = state.result.files
    _make_folder(folder)
    names = local_names([file.path for file in files], [file.mime_type for file in files])
    saved = []
    for file, name in zip(files, names, strict=True):
        target = folder / name
        if resume and not force and target.is_file() and target.stat().st_size == file.size:
            report.say(f"{target} is there already, {show_size(file.size)}")
        else:
            with report.progress(name, file.size) as advance:
                await download(client, session_id, file, target, force=force, moved=_bytes_shown(advance, file.size))
            report.say(f"saved {file_line(file)}")
        saved.append({**file_document(file), "saved_as": str(target)})
    return saved


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClientError(f"{folder}: {error.strerror}") from None


def _bytes_shown(advance: Advance, size: int) -> Moved:
    return lambda have: advance(have, f"{show_size(have)} of {show_size(size)}")


async def _start(client: Client, order: Order, report: Report) -> str:
    starting = asyncio.ensure_future(client.start(order.options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The session may already be running, and only the answer says which one it is.
        report.warn("interrupted; waiting for the server's answer, to stop the session")
        await _give_up(client, await starting, order, report)
        raise


async def _follow(client: Client, session_id: str, order: Order, report: Report) -> mmexport.State:
    """Wait for the session to end, showing how far it is."""
    backoff = Backoff()
    poll_s = FIRST_POLL_S
    span_s = max(order.end_us - order.start_us, 1) / 1e6
    with report.progress("exporting", span_s) as advance:
        while True:
            state = await client.until_it_works(lambda: client.state(session_id), backoff)
            if state.state != mmexport.EState.S_RUNNING:
                require_completed(session_id, state)
                advance(span_s, show_wire_time(state.last_frame_timestamp))
                return state
            told = await client.until_it_works(lambda: client.report(session_id), backoff) if report.has_bars else None
            if told is None:
                advance(_done_s(state, order), show_wire_time(state.last_frame_timestamp))
            else:
                advance(span_s * told.percent / 100, progress_note(told))
            await client.pause(poll_s)
            poll_s = min(poll_s * 1.5, LONGEST_POLL_S)


def _done_s(state: mmexport.State, order: Order) -> float:
    try:
        return max(0, parse_timestamp(state.last_frame_timestamp) - order.start_us) / 1e6
    except ValueError:
        return 0  # no frame yet


async def _end(client: Client, session_id: str, order: Order, report: Report) -> mmexport.State:
    """Stop a live session at an interrupt, as it was meant to end. Cancelled again, it leaves at once."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
    report.say(f"stopping session {plain(session_id)} (again: leave at once)")
    try:
        return await client.stop(session_id)
    except asyncio.CancelledError:
        report.warn(f"the session may still be running; {_commands(session_id, order)}")
        raise


async def _give_up(client: Client, session_id: str, order: Order, report: Report) -> None:
    """Stop a running session after an interrupt. Nothing that was written is thrown away."""
    report.warn(f"interrupted; stopping session {plain(session_id)} on the server (again: leave at once)")
    try:
        state = await client.stop(session_id)
        if state.result.files:
            report.warn(f"the session is stopped, what it had written is kept: {_commands(session_id, order)}")
        else:
            await client.destroy(session_id)
            report.warn("the session is stopped and removed; it had written nothing")
    except ClientError as error:
        report.warn(f"the session may still be running: {error}; {_commands(session_id, order)}")
    except asyncio.CancelledError:
        report.warn(f"the session may still be running; {_commands(session_id, order)}")
        raise


def _commands(session_id: str, order: Order) -> str:
    """What a person may do about a session that is left on the server, to be pasted into a shell."""
    word = shlex.quote(plain(session_id))
    # Servers make ids as they like; one that begins with a dash would be read as options.
    arguments = f"{order.server_option} {'-- ' if word.startswith('-') else ''}{word}"
    return f"`vx download{arguments}` or `vx destroy{arguments}`"


def require_completed(session_id: str, state: mmexport.State) -> None:
    """ClientError unless a session's files can be downloaded."""
    if state.state == mmexport.EState.S_RUNNING:
        raise ClientError(f"session {session_id} is still running; `vx stop` ends it", Exit.REFUSED)
    if state.state != mmexport.EState.S_COMPLETED:
        raise ClientError(f"session {session_id} is {state_name(state)}: its files are gone", Exit.NOT_FOUND)
