"""`vx cameras` and `vx history`: what there is to export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vx.cli import values
from vx.cli.calling import Call, client_command, told_as_usage
from vx.timestamps import MS_1900_TO_1970, format_timestamp

if TYPE_CHECKING:
    from vx.cli.client import Client
    from vx.cli.report import Report
    from vx.rpc.generated.axxonsoft.bl import archive, domain

_DAY_MS = 86_400_000
_BAR = 72
"""Characters of a day's bar: each is twenty minutes."""


@click.command()
@client_command
def cameras(call: Call) -> None:
    """List the cameras that one may see, with their archives."""
    from vx.cli.report import print_json, table

    found = call.run(lambda client, report: client.cameras())
    if call.as_json:
        print_json({"cameras": [_document(camera) for camera in found]})
        return
    rows = [("ID", "NAME", "CAMERA", "ARCHIVES")]
    for camera in found:
        archives = ", ".join(binding.storage for binding in camera.archive_bindings) or "-"
        name, access_point = values.plain(camera.display_name), values.plain(camera.access_point)
        rows.append((values.plain(camera.display_id) or "-", name, access_point, values.plain(archives)))
    click.echo("\n".join(table(rows)) if found else "no cameras")


def _document(camera: domain.Camera) -> dict[str, Any]:
    return {
        "access_point": camera.access_point,
        "display_id": camera.display_id,
        "display_name": camera.display_name,
        "archives": [
            {"access_point": binding.storage, "is_default": binding.is_default} for binding in camera.archive_bindings
        ],
    }


@click.command(
    epilog="""
\b
Examples:
  vx history --camera Server1/DeviceIpint.1 --day 2026-05-11
  vx history --camera Server1/DeviceIpint.1 --json
"""
)
@click.option("--camera", required=True, metavar="NAME", help="Its access point; see `vx cameras`.")
@click.option("--day", metavar="DATE", help="2026-05-11, in UTC; by default today.")
@click.option(
    "--storage", default="", metavar="NAME", help="Access point of the archive; by default the camera's first."
)
@click.option(
    "--gap",
    "gap_s",
    type=click.FloatRange(0, 86400),
    default=1,
    show_default=True,
    help="Shorter gaps are none, seconds.",
)
@client_command
def history(call: Call, camera: str, day: str | None, storage: str, gap_s: float) -> None:
    """Show when a camera was recorded on a day: as a bar, and each stretch."""
    with told_as_usage("--camera"):
        origin = values.camera_origin(camera)
    with told_as_usage("--day"):
        begin_ms = values.parse_day(day, call.surroundings.now_us()) // 1000

    async def work(client: Client, report: Report) -> archive.GetHistory2Response:
        from vx.rpc.generated.axxonsoft.bl import archive

        source = _source(await client.cameras(), origin, storage)
        request = archive.GetHistory2Request(
            access_point=source,
            begin_time=begin_ms + MS_1900_TO_1970,
            end_time=begin_ms + _DAY_MS + MS_1900_TO_1970,
            min_gap_ms=round(gap_s * 1000),
        )
        return await client.history(request)

    answer = call.run(work)
    _show(call, answer, begin_ms)


def _source(found: list[domain.Camera], origin: str, storage: str) -> str:
    from vx.cli.client import ClientError, Exit

    camera = next((each for each in found if each.access_point == origin), None)
    if camera is None:
        raise ClientError(
            f"there is no camera {origin}, or you may not see it; `vx cameras` lists them", Exit.NOT_FOUND
        )
    wanted = storage.removeprefix("hosts/")
    for binding in camera.archive_bindings:
        if (binding.storage.removeprefix("hosts/") == wanted or not wanted) and binding.sources:
            return str(binding.sources[0].access_point)
    raise ClientError(f"the camera has no archive {storage}".rstrip(), Exit.NOT_FOUND)


def _show(call: Call, answer: archive.GetHistory2Response, begin_ms: int) -> None:
    from vx.cli.report import print_json
    from vx.rpc.generated.axxonsoft.bl.archive import GetHistory2ResponseEResult

    spans = [(span.begin_time - MS_1900_TO_1970, span.end_time - MS_1900_TO_1970) for span in answer.intervals]
    is_whole = answer.result == GetHistory2ResponseEResult.FULL
    if call.as_json:
        intervals = [
            {"begin": format_timestamp(begin * 1000), "end": format_timestamp(end * 1000)} for begin, end in spans
        ]
        print_json({"complete": is_whole, "intervals": intervals})
        return
    click.echo("00" + "".join(f"{hour:>9}" for hour in ("03", "06", "09", "12", "15", "18", "21", "24")))
    click.echo(values.day_bar(spans, begin_ms, _BAR))
    for begin, end in spans:
        duration = values.show_duration((end - begin) * 1000)
        click.echo(f"{values.show_time(begin * 1000)} to {values.show_time(end * 1000)}  {duration}")
    if not spans:
        click.echo("nothing was recorded")
    if not is_whole:
        click.echo("vx: not all of the day could be looked at, or you may not see all of it", err=True)
