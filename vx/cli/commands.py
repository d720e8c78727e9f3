"""The commands of `vx`: options, help texts, and who does the work. Each imports what it needs when it runs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vx.cli import administration, discovery, looks, values
from vx.cli.calling import Call, Surroundings, client_command, told_as_usage

if TYPE_CHECKING:
    from vx.cli.client import Client
    from vx.cli.export import Order
    from vx.cli.report import Report
    from vx.rpc.generated.axxonsoft.bl import mmexport
    from vx.rpc.generated.vx import v1


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):  # the latter at a question
            ctx.exit(130)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
\b
Exit statuses:
    0  it worked
    1  the export failed or nothing was recorded, a file could not be saved, or the server cannot run
    2  a mistake in the command, its values or the configuration
    3  no such session, camera or archive
    4  the server cannot be reached
    5  refused: a limit, a permission, a file that exists already
    6  the server cannot do this
  130  interrupted by Ctrl-C (143: by SIGTERM)

\b
Examples:
  vx serve --config /etc/vx.toml
  vx export --camera Server1/DeviceIpint.1 --start -10m --end now -o clips
  vx export --help
""",
)
@click.version_option(package_name="vx", message="%(prog)s %(version)s")
@click.pass_context
def vx(ctx: click.Context) -> None:
    """An export server for surveillance video, and a client of it.

    Results go to stdout, everything else to stderr.
    """
    if ctx.obj is None:
        ctx.obj = Surroundings()


@vx.command(
    epilog="""
\b
Example:
  vx serve --config /etc/vx.toml
"""
)
@click.option("--config", "config_file", required=True, metavar="FILE", help="The configuration, TOML.")
def serve(config_file: str) -> None:
    """Run the server.

    It ends on SIGTERM or Ctrl-C, once the calls under way have ended; a second one ends it at once.

    Prints `listening on ADDRESS` when it accepts connections, and logs to stderr. A mistake in the configuration is
    told with its key, the value and what is allowed; the exit status is then 2.

    On SIGHUP certificates, users and roles are read again, without dropping a connection.
    """
    from vx.daemon import serve

    serve(config_file)


_camera_option = click.option(
    "--camera",
    "cameras",
    required=True,
    multiple=True,
    metavar="NAME",
    help="Access point, hosts/NODE/DeviceIpint.N/SourceEndpoint.video:A:B; hosts/ may be left out, and the end too, "
    "for the main stream. May be given several times.",
)
_storage_option = click.option(
    "--storage", default="", metavar="NAME", help="Access point of the archive; by default the camera's first one."
)
_comment_option = click.option("--comment", default="", metavar="TEXT", help="Kept in the files' metadata.")
_folder_option = click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Folder for the files, made if need be; by default the current one.",
)
_force_option = click.option("--force", is_flag=True, help="Overwrite files that exist already.")
_keep_option = click.option("--keep", is_flag=True, help="Leave the session and its files on the server.")

_TIMES = """
\b
Times:
  2026-05-11T08:04:11         UTC, as all times without an offset
  2026-05-11T10:04:11+02:00   with an offset
  20260511T080411.155         as the server writes them, UTC
  -10m  -2h30m  -1d  now      so long before now
"""


@dataclass(frozen=True)
class _Clip:
    """What the options of a clip say."""

    options: mmexport.Options
    start_us: int
    end_us: int
    understood: str
    """In words, for people to check."""


def _clip_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what a clip is, and those of all clients; the function gets a `Call` and a `_Clip`."""

    @_camera_option
    @click.option("--start", metavar="TIME", help="The first moment; see below.")
    @click.option("--end", metavar="TIME", help="The moment at which the clip ends.")
    @click.option("--live", is_flag=True, help="What the cameras show from now on, instead of what was recorded.")
    @click.option("--duration", metavar="TIME", help="With --live: 30s, 10m, 1h30m; without it, until Ctrl-C.")
    @_storage_option
    @click.option(
        "--format", "container", type=click.Choice(["mp4", "mkv"]), default="mp4", show_default=True, help="Container."
    )
    @_comment_option
    @click.option("--no-audio", is_flag=True, help="Leave sound out.")
    @click.option("--max-size", metavar="SIZE", help="No file is larger: 100MB, 1.5GB, 64MiB. The next one goes on.")
    @click.option(
        "--text",
        type=click.Choice(["subtitles", "burn", "none"]),
        help="The camera's name and the time: as subtitles (the default), burnt into the picture, or not at all.",
    )
    @looks.mask_option
    @looks.crop_option
    @looks.zip_password_option
    @client_command
    @functools.wraps(function)
    def command(
        call: Call,
        cameras: tuple[str, ...],
        start: str | None,
        end: str | None,
        live: bool,
        duration: str | None,
        storage: str,
        container: Literal["mp4", "mkv"],
        comment: str,
        no_audio: bool,
        max_size: str | None,
        text: str | None,
        masks: tuple[list[tuple[float, float]], ...],
        crop: list[float] | None,
        zip_password: str | None,
        **options: Any,
    ) -> None:
        now_us = call.surroundings.now_us()
        with told_as_usage("--camera"):
            origins = [values.camera_origin(camera) for camera in cameras]
        with told_as_usage("--max-size"):
            max_file_size = values.parse_size(max_size) if max_size else 0
        from vx.cli.export import archive_mode, export_options, live_mode

        if live:
            _refuse_with_live(start=start, end=end, storage=storage)
            with told_as_usage("--duration"):
                length_us = values.parse_duration(duration) if duration else 0
            start_us, end_us = now_us, now_us + length_us
            mode: Any = live_mode(origins, length_us)
            span = f"{values.show_duration(length_us)} from now on" if length_us else "from now on, until Ctrl-C,"
        else:
            if duration:
                raise click.BadParameter("is for --live", param_hint="--duration")
            start_us, end_us = _range(start, end, now_us)
            mode = archive_mode(origins, storage=storage, start_us=start_us, end_us=end_us)
            length = values.show_duration(end_us - start_us)
            span = f"{values.show_time(start_us)} to {values.show_time(end_us)} ({length})"
        wanted = export_options(
            mode,
            comment=comment,
            container=container,
            reject_audio=no_audio,
            max_file_size=max_file_size,
            password=zip_password or "",
        )
        looks.draw(wanted, text=text, masks=masks, crop=crop)
        function(call, _Clip(wanted, start_us, end_us, f"{span} of {', '.join(origins)}"), **options)

    return command


@vx.command(
    epilog=_TIMES
    + """
\b
Examples:
  vx export --camera Server1/DeviceIpint.1 --start -10m --end now
  vx export --camera hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0 \\
            --start 2026-05-11T08:00 --end 2026-05-11T08:30 --format mkv -o clips
  vx export --camera Server1/DeviceIpint.1 --start -1h --end now --max-size 100MB --json
  vx export --camera Server1/DeviceIpint.1 --start -10m --end now --mask "0,0 0.3,0 0.3,0.4 0,0.4" --text burn
  vx export --live --camera Server1/DeviceIpint.1 --duration 30s
"""
)
@_folder_option
@_force_option
@_keep_option
@_clip_command
def export(call: Call, clip: _Clip, folder: Path, force: bool, keep: bool) -> None:
    """Export a clip from the archive, or from live cameras, and download it.

    The files' paths are printed on stdout. Ctrl-C stops the session on the server, where what was written until then
    is kept for `vx download`; a second one leaves at once. With --live, Ctrl-C ends the clip, which is then downloaded.
    A download that breaks goes on where it broke.
    """
    from vx.cli.export import Order

    order = Order(clip.options, clip.start_us, clip.end_us, folder, force, keep, call.server_option)
    _export(call, order, clip.understood)


@vx.command(
    epilog=_TIMES
    + """
\b
Example:
  vx estimate --camera Server1/DeviceIpint.1 --start -1d --end now
"""
)
@_clip_command
def estimate(call: Call, clip: _Clip) -> None:
    """Show what an export would find and take, without starting it.

    What is recorded and what is missing, whether it will be copied or encoded and why, the size to expect, and whether
    the server would take it now.
    """
    from vx.cli.report import print_json
    from vx.cli.told import estimate_document, estimate_lines

    async def work(client: Client, report: Report) -> Any:
        report.say(clip.understood)
        return await client.estimate(clip.options)

    answer = call.run(work)
    if call.as_json:
        print_json(estimate_document(answer))
    else:
        click.echo("\n".join(estimate_lines(answer)))


def _refuse_with_live(**given: str | None) -> None:
    for name, value in given.items():
        if value:
            raise click.BadParameter("is for what was recorded, not for --live", param_hint=f"--{name}")


def _range(start: str | None, end: str | None, now_us: int) -> tuple[int, int]:
    """The ends in their order."""
    for name, value in (("--start", start), ("--end", end)):
        if not value:
            raise click.UsageError(f"Missing option '{name}' (or give --live).")
    with told_as_usage("--start"):
        start_us = values.parse_time(start or "", now_us)
    with told_as_usage("--end"):
        end_us = values.parse_time(end or "", now_us)
    if start_us == end_us:
        raise click.BadParameter("the same as --start: the clip would be empty", param_hint="--end")
    return min(start_us, end_us), max(start_us, end_us)


@vx.command(
    epilog=_TIMES
    + """
\b
Examples:
  vx snapshot --camera Server1/DeviceIpint.1 --at 2026-05-11T08:04:11.2
  vx snapshot --camera Server1/DeviceIpint.1 --camera Server1/DeviceIpint.2 --at -30s -o pictures
  vx snapshot --camera Server1/DeviceIpint.1 --at -30s --format pdf --comment "A blue car enters"
  vx snapshot --live --camera Server1/DeviceIpint.1
"""
)
@_camera_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["jpeg", "pdf"]),
    default="jpeg",
    show_default=True,
    help="A picture for each camera, or one report with a page for each.",
)
@click.option("--at", metavar="TIME", help="The moment; see below.")
@click.option("--live", is_flag=True, help="What the cameras show now, instead of what was recorded.")
@_storage_option
@_comment_option
@click.option("--burn", is_flag=True, help="Burn the camera's name and the time into the picture.")
@looks.mask_option
@looks.crop_option
@_folder_option
@_force_option
@_keep_option
@client_command
def snapshot(
    call: Call,
    cameras: tuple[str, ...],
    form: Literal["jpeg", "pdf"],
    at: str | None,
    live: bool,
    storage: str,
    comment: str,
    burn: bool,
    masks: tuple[list[tuple[float, float]], ...],
    crop: list[float] | None,
    folder: Path,
    force: bool,
    keep: bool,
) -> None:
    """Export still pictures and download them.

    They are JPEG files of the frame that each camera showed at that moment, or with --live shows next, or a PDF report
    of all of them; their paths are printed on stdout.
    """
    with told_as_usage("--camera"):
        origins = [values.camera_origin(camera) for camera in cameras]
    now_us = call.surroundings.now_us()
    from vx.cli.export import Order, archive_mode, export_options, live_mode

    if live:
        _refuse_with_live(at=at, storage=storage)
        at_us, moment = now_us, "the next frame"
        mode: Any = live_mode(origins)
    else:
        if not at:
            raise click.UsageError("Missing option '--at' (or give --live).")
        with told_as_usage("--at"):
            at_us = values.parse_time(at, now_us)
        moment = values.show_time(at_us)
        mode = archive_mode(origins, storage=storage, start_us=at_us, end_us=at_us)
    options = export_options(mode, comment=comment, container=form)
    looks.draw(options, text="burn" if burn else None, masks=masks, crop=crop)
    order = Order(options, at_us, at_us, folder, force, keep, call.server_option)
    _export(call, order, f"{moment} of {', '.join(origins)}")


def _export(call: Call, order: Order, understood: str) -> None:
    from vx.cli.export import export
    from vx.cli.report import print_json

    async def work(client: Client, report: Report) -> dict[str, Any]:
        report.say(understood)
        return await export(client, order, report)

    document = call.run(work)
    if call.as_json:
        print_json(document)
    else:
        _print_saved(document)


def _print_saved(document: dict[str, Any]) -> None:
    for file in document["files"]:
        click.echo(file["saved_as"])


@vx.command()
@client_command
def sessions(call: Call) -> None:
    """List all sessions of the server, oldest first."""
    from vx.cli.report import print_json, session_document, session_table

    found = call.run(lambda client, report: client.sessions())
    if call.as_json:
        print_json({"sessions": [session_document(info) for info in found]})
    else:
        click.echo("\n".join(session_table(found)) if found else "no sessions")


@vx.command()
@click.argument("session_id", metavar="ID")
@client_command
def state(call: Call, session_id: str) -> None:
    """Show a session, its files, how far it is and what became of each camera.

    Asking makes the server keep the files for another while.
    """
    _show_state(call, session_id, lambda client, report: client.state(session_id))


@vx.command()
@click.argument("session_id", metavar="ID")
@client_command
def stop(call: Call, session_id: str) -> None:
    """End a running session.

    What it has written so far is kept as playable files; the state after that is shown.
    """
    _show_state(call, session_id, lambda client, report: client.stop(session_id))


def _show_state(call: Call, session_id: str, ask: Callable[[Client, Report], Awaitable[mmexport.State]]) -> None:
    from vx.cli.report import print_json, state_document, state_lines
    from vx.cli.told import report_document, report_lines

    async def work(client: Client, report: Report) -> tuple[mmexport.State, v1.Report | None]:
        return await ask(client, report), await client.report(session_id)

    answer, told = call.run(work)
    if call.as_json:
        document = state_document(session_id, answer)
        print_json(document if told is None else {**document, "report": report_document(told)})
    else:
        click.echo("\n".join([*state_lines(session_id, answer), *(report_lines(told) if told else [])]))


@vx.command()
@click.argument("session_id", metavar="ID")
@client_command
def destroy(call: Call, session_id: str) -> None:
    """Remove a session and its files.

    A running one is stopped first.
    """
    from vx.cli.report import print_json

    call.run(lambda client, report: client.destroy(session_id))
    if call.as_json:
        print_json({"session_id": session_id, "destroyed": True})
    else:
        click.echo(f"session {values.plain(session_id)} is removed", err=True)


@vx.command(
    epilog="""
\b
Example:
  vx download 0b9f... -o clips       (again, if it broke: it goes on where it ended)
""",
)
@click.argument("session_id", metavar="ID")
@_folder_option
@_force_option
@client_command
def download(call: Call, session_id: str, folder: Path, force: bool) -> None:
    """Download the files of a session.

    It must be completed. What an earlier try left is gone on with, and a file that is there already in its full
    size is not fetched again. The session stays on the server.
    """
    from vx.cli.client import Backoff
    from vx.cli.export import fetch, require_completed
    from vx.cli.report import print_json

    async def work(client: Client, report: Report) -> dict[str, Any]:
        state = await client.until_it_works(lambda: client.state(session_id), Backoff())
        require_completed(session_id, state)
        saved = await fetch(client, session_id, state, folder, force=force, resume=True, report=report)
        return {"session_id": session_id, "succeeded": state.result.succeeded, "files": saved}

    document = call.run(work)
    if call.as_json:
        print_json(document)
    else:
        _print_saved(document)


vx.add_command(administration.init)
vx.add_command(administration.passwd)
vx.add_command(administration.audit)
vx.add_command(discovery.cameras)
vx.add_command(discovery.history)
