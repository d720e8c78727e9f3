"""`vx export`, `vx snapshot` and `vx download`: what reaches the disk, what is left on the server, what is said."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from click.testing import Result
from grpclib.const import Status

from tests.cli.fake import ID, RUNNING, Script, completed, right_chunks
from vx.cli.client import Client, ClientError, Exit
from vx.cli.download import CHUNK_KB, part_path
from vx.cli.export import Order
from vx.cli.export import export as run_export
from vx.cli.report import Report
from vx.rpc.generated.axxonsoft.bl import mmexport
from vx.rpc.generated.axxonsoft.bl.primitive import Point, SimplePolygon

Run = Callable[..., Result]

CAMERA = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
CLIP = ("--camera", CAMERA, "--start", "2026-05-11T08:04:10", "--end", "2026-05-11T08:04:20")
CHUNK = CHUNK_KB * 1024
LONG = os.urandom(CHUNK * 3 + 1000)


def export(run: Run, server: str, *more: str) -> Result:
    return run("export", "--server", server, *CLIP, *more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_clip_is_exported_downloaded_and_removed_from_the_server(
    run: Run, server: str, script: Script, tmp_path: Path
) -> None:
    script.states = [RUNNING, RUNNING]
    script.files = {"x/Entrance.mp4": LONG, "x/Entrance-2.mp4": b"short"}
    result = export(run, server, "-o", "clips/today")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["clips/today/Entrance.mp4", "clips/today/Entrance-2.mp4"]
    assert (tmp_path / "clips/today/Entrance.mp4").read_bytes() == LONG
    assert (tmp_path / "clips/today/Entrance-2.mp4").read_bytes() == b"short"
    assert names(tmp_path / "clips/today") == ["Entrance-2.mp4", "Entrance.mp4"]
    assert script.calls == ["start", "state", "state", "state", "download", "download", "destroy"]
    assert result.stderr.splitlines() == [
        f"2026-05-11 08:04:10 UTC to 2026-05-11 08:04:20 UTC (10s) of {CAMERA}",
        f"session {ID} started",
        "saved x/Entrance.mp4, 1.6 MB, 2026-05-11 08:04:10.5 UTC to 2026-05-11 08:04:20 UTC",
        "saved x/Entrance-2.mp4, 5 B, 2026-05-11 08:04:10.5 UTC to 2026-05-11 08:04:20 UTC",
    ]


def test_what_the_server_is_asked_for(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mkv": b"1"}
    storage = "hosts/Server1/MultimediaStorage.Blue/MultimediaStorage"
    more = ("--format", "mkv", "--comment", "Door", "--no-audio", "--max-size", "100MB", "--storage", storage)
    result = run(
        "export", "--server", server, "--camera", "Server1/DeviceIpint.1", "--camera", CAMERA.replace(".1", ".2"),
        "--start", "-10m", "--end", "now", *more,
    )  # fmt: skip
    assert result.exit_code == 0
    assert script.started[0] == mmexport.Options(
        archive=mmexport.ArchiveMode(
            sources=[
                mmexport.ArchiveModeSource(origin=CAMERA, storages=[storage]),
                mmexport.ArchiveModeSource(origin=CAMERA.replace(".1", ".2"), storages=[storage]),
            ],
            start_timestamp="20260511T085000.000000",
            end_timestamp="20260511T090000.000000",
        ),
        stream=mmexport.StreamType(
            format=mmexport.StreamTypeEFormat.MKV, settings=[mmexport.StreamSetting(reject_audio=True)]
        ),
        settings=[mmexport.CommonSetting(comment="Door")],
        max_file_size=100_000_000,
    )


def test_a_snapshot(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.jpg": b"jpeg"}
    result = run("snapshot", "--server", server, "--camera", CAMERA, "--at", "2026-05-11T10:04:11.5+02:00")
    assert result.exit_code == 0
    assert result.stdout == "a.jpg\n"
    assert (tmp_path / "a.jpg").read_bytes() == b"jpeg"
    assert script.started[0] == mmexport.Options(
        archive=mmexport.ArchiveMode(
            sources=[mmexport.ArchiveModeSource(origin=CAMERA)],
            start_timestamp="20260511T080411.500000",
            end_timestamp="20260511T080411.500000",
        ),
        snapshot=mmexport.SnapshotType(format=mmexport.SnapshotTypeEFormat.JPEG),
    )


def test_what_is_drawn_and_what_is_locked(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.pdf": b"1"}
    (tmp_path / "secret").write_text("s3cret\nnot this\n")
    common = ["--server", server, "--camera", CAMERA, "--mask", "0,0 0.5,0 0.5,1", "--crop", "0,0,0.5,1", "--force"]
    assert run("snapshot", *common, "--at", "now", "--format", "pdf", "--burn").exit_code == 0
    assert run("export", *common, "--start", "-1m", "--end", "now", "--text", "none").exit_code == 0
    locked = ("--zip-password-file", str(tmp_path / "secret"))
    assert run("export", "--server", server, "--camera", CAMERA, "--live", *locked, "--force").exit_code == 0
    triangle = SimplePolygon(points=[Point(), Point(x=0.5), Point(x=0.5, y=1)])
    for options in script.started[:2]:
        mask, crop = options.archive.sources[0].settings
        assert mask.mask_space.space == [triangle]
        assert (crop.crop_area.right, crop.crop_area.bottom) == (0.5, 1)
    assert script.started[0].snapshot.format == mmexport.SnapshotTypeEFormat.PDF
    burn, apply = script.started[0].settings
    assert (burn.burn_subtitle, apply.apply_mask) == (True, True)
    assert script.started[1].settings[0].subtitle_cast.common_info_mode == mmexport.SubtitleInfoEMethod.SM_NONE
    (password,) = script.started[2].stream.settings
    assert password.password == "s3cret"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--mask", "0,0 1,1"), "'0,0 1,1' is not a polygon; allowed is"),
        (("--mask", "0,0 1,1 2,0"), "is not a polygon"),
        (("--crop", "0.5,0,0.5,1"), "'0.5,0,0.5,1' is not an area; allowed is"),
        (("--zip-password-file", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_mistakes_in_what_is_drawn(run: Run, arguments: tuple[str, ...], text: str) -> None:
    result = run("export", "--camera", CAMERA, "--start", "-1m", "--end", "now", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


def test_what_the_server_is_asked_for_of_live_cameras(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"1"}
    live = mmexport.LiveMode(sources=[mmexport.LiveModeSource(origin=CAMERA)])
    assert run("snapshot", "--live", "--server", server, "--camera", CAMERA).exit_code == 0
    jpeg = mmexport.SnapshotType(format=mmexport.SnapshotTypeEFormat.JPEG)
    assert script.started[0] == mmexport.Options(live=live, snapshot=jpeg)
    result = run("export", "--live", "--duration", "1m30s", "--server", server, "--camera", CAMERA, "--force")
    assert result.exit_code == 0
    live.duration = timedelta(seconds=90)
    stream = mmexport.StreamType(format=mmexport.StreamTypeEFormat.MP4)
    assert script.started[1] == mmexport.Options(live=live, stream=stream)
    assert f"1m 30s from now on of {CAMERA}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("export", "--live", "--start", "now"), "--start: is for what was recorded, not for --live"),
        (("export", "--live", "--duration", "soon"), "'soon' is not a duration; allowed is 30s, 1.5s, 10m, 1h30m"),
        (("export", "--start", "-1h", "--end", "now", "--duration", "1s"), "--duration: is for --live"),
        (("export", "--start", "-1h"), "Missing option '--end' (or give --live)."),
        (("snapshot", "--live", "--at", "now"), "--at: is for what was recorded, not for --live"),
        (("snapshot",), "Missing option '--at' (or give --live)."),
    ],
)
def test_mistakes_with_live_cameras(run: Run, arguments: tuple[str, ...], text: str) -> None:
    result = run(*arguments, "--camera", CAMERA)
    assert result.exit_code == 2
    assert text in result.stderr


def test_ctrl_c_is_how_a_live_export_ends(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG}
    script.states = [RUNNING, RUNNING]
    script.before["state"] = interrupt_and_wait
    result = run("export", "--live", "--server", server, "--camera", CAMERA)
    assert result.exit_code == 0
    assert script.calls == ["start", "state", "stop", "download", "destroy"]
    assert (tmp_path / "a.mp4").read_bytes() == LONG


def test_json_is_one_document_and_nothing_else_is_said(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"12345"}
    result = export(run, server, "--json", "--keep")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "session_id": ID,
        "succeeded": True,
        "reason": "",
        "kept": True,
        "files": [
            {
                "path": "a.mp4",
                "size": 5,
                "min_timestamp": "20260511T080410.500000",
                "max_timestamp": "20260511T080420.000000",
                "mime_type": "video/mp4",
                "timezone": 0,
                "saved_as": "a.mp4",
            }
        ],
    }
    assert "destroy" not in script.calls


@pytest.mark.parametrize("how", ["cut", "unavailable"])
def test_a_download_that_breaks_goes_on_where_it_broke(
    run: Run, server: str, script: Script, tmp_path: Path, pauses: list[float], how: str
) -> None:
    script.files = {"a.mp4": LONG}
    if how == "cut":
        script.cut_after = [2, 0, 1]
        tries = 4
    else:
        script.refuse = {"download": [(Status.UNAVAILABLE, "going down")] * 2}
        tries = 3
    result = export(run, server)
    assert result.exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == LONG
    assert len(script.downloads) == tries
    # What came before a cut may be lost on the way; but no try begins anew behind what it has.
    firsts = [request.start_from_chunk_index for request in script.downloads]
    assert firsts == sorted(firsts)
    assert script.downloads[-1].chunk_size_kb == CHUNK_KB
    assert "trying again in 0.5 s" in result.stderr
    assert script.calls[-1] == "destroy"


def test_pauses_grow_and_end(run: Run, server: str, script: Script, tmp_path: Path, pauses: list[float]) -> None:
    script.files = {"a.mp4": LONG}
    script.refuse = {"download": [(Status.UNAVAILABLE, "going down")] * 9}
    result = export(run, server)
    assert result.exit_code == 4
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert result.stderr.splitlines()[-1] == (
        f"vx: going down; session {ID} is kept: "
        f"`vx download --server {server} {ID}` or `vx destroy --server {server} {ID}`"
    )
    assert "destroy" not in script.calls


def test_a_part_of_an_earlier_try_is_gone_on_with(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG}
    part = part_path(tmp_path / "a.mp4", ID, "a.mp4")
    part.write_bytes(LONG[: CHUNK + 77])
    result = run("download", ID, "--server", server)
    assert result.exit_code == 0
    assert [request.start_from_chunk_index for request in script.downloads] == [1]
    assert (tmp_path / "a.mp4").read_bytes() == LONG
    assert names(tmp_path) == ["a.mp4"]


def test_a_part_that_has_it_all_needs_no_download(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG}
    part_path(tmp_path / "a.mp4", ID, "a.mp4").write_bytes(LONG)
    assert run("download", ID, "--server", server).exit_code == 0
    assert script.downloads == []
    assert (tmp_path / "a.mp4").read_bytes() == LONG


def test_a_part_that_is_too_long_is_begun_anew(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG}
    part_path(tmp_path / "a.mp4", ID, "a.mp4").write_bytes(b"x" * (len(LONG) + 1))
    assert run("download", ID, "--server", server).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == LONG


def test_a_part_of_another_session_is_left_alone(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG}
    other = part_path(tmp_path / "a.mp4", "another", "a.mp4")
    other.write_bytes(b"other bytes" * 100_000)
    assert export(run, server).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == LONG
    assert other.read_bytes() == b"other bytes" * 100_000


def test_an_empty_file(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": b""}
    assert export(run, server).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == b""


def test_download_again_fetches_only_what_is_missing(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": LONG, "b.mp4": b"b"}
    (tmp_path / "a.mp4").write_bytes(LONG)
    result = run("download", ID, "--server", server)
    assert result.exit_code == 0
    assert [request.file_path for request in script.downloads] == ["b.mp4"]
    assert result.stdout.splitlines() == ["a.mp4", "b.mp4"]
    assert "a.mp4 is there already, 1.6 MB" in result.stderr


def _short(request: mmexport.DownloadFileRequest, content: bytes) -> list[mmexport.FileChunk]:
    return right_chunks(request, content)[:-1]


def _long(request: mmexport.DownloadFileRequest, content: bytes) -> list[mmexport.FileChunk]:
    chunks = right_chunks(request, content)
    return [*chunks[:-1], mmexport.FileChunk(index=chunks[-1].index, data=bytes(CHUNK))]


def _leap(request: mmexport.DownloadFileRequest, content: bytes) -> list[mmexport.FileChunk]:
    chunks = right_chunks(request, content)
    return [chunks[0], *chunks[2:]]


@pytest.mark.parametrize(
    ("send", "said"),
    [
        (_short, f"the server promised {len(LONG)} bytes and sent {3 * CHUNK}"),
        (_long, f"the server promised {len(LONG)} bytes and sent more"),
        (_leap, f"the server sent chunk 2, which begins at byte {2 * CHUNK}, after byte {CHUNK}"),
    ],
)
def test_wrong_bytes_are_not_kept(
    run: Run,
    server: str,
    script: Script,
    tmp_path: Path,
    send: Callable[[mmexport.DownloadFileRequest, bytes], list[mmexport.FileChunk]],
    said: str,
) -> None:
    script.files = {"a.mp4": LONG}
    script.send = send
    result = export(run, server)
    assert result.exit_code == 1
    assert f"vx: a.mp4: {said}; what had come of it is removed; session {ID} is kept: " in result.stderr
    assert result.stdout == ""
    assert names(tmp_path) == []
    assert "destroy" not in script.calls


def test_nothing_is_overwritten_without_force(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": b"new"}
    (tmp_path / "a.mp4").write_bytes(b"old")
    result = export(run, server)
    assert result.exit_code == 5
    assert "vx: a.mp4 exists already; --force overwrites it, -o DIR saves elsewhere; session" in result.stderr
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert names(tmp_path) == ["a.mp4"]
    assert script.calls == ["start", "state"]
    assert run("download", ID, "--server", server, "--force").exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    run: Run, server: str, script: Script, tmp_path: Path
) -> None:
    script.files = {"a.mp4": b"new"}

    async def somebody_saves() -> None:
        (tmp_path / "a.mp4").write_bytes(b"other")

    script.before["download"] = somebody_saves
    result = export(run, server)
    assert result.exit_code == 5
    assert "a.mp4 exists already" in result.stderr
    assert (tmp_path / "a.mp4").read_bytes() == b"other"


def test_hostile_names_stay_in_the_folder(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {
        "../../evil.mp4": b"1",
        "/etc/cron.d/evil": b"2",
        "..": b"3",
        ".bashrc": b"4",
        "a\x1b[2J\n.mp4": b"5",
        "b/evil.mp4": b"6",
    }
    result = export(run, server, "-o", "deep/er")
    assert result.exit_code == 0
    assert names(tmp_path) == ["deep"]
    assert names(tmp_path / "deep") == ["er"]
    assert names(tmp_path / "deep/er") == ["a_[2J_.mp4", "bashrc", "evil", "evil-2.mp4", "evil.mp4", "file-3.mp4"]
    assert "\x1b" not in result.output


def test_a_planted_link_is_not_followed(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": b"1"}
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    part_path(tmp_path / "a.mp4", ID, "a.mp4").symlink_to(secret)
    result = export(run, server)
    assert result.exit_code == 1
    assert "Too many levels of symbolic links" in result.stderr
    assert secret.read_bytes() == b"mine"


def test_a_folder_that_cannot_be(run: Run, server: str, script: Script, tmp_path: Path) -> None:
    script.files = {"a.mp4": b"1"}
    (tmp_path / "file").write_bytes(b"")
    result = export(run, server, "-o", "file/folder")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "vx: file/folder: Not a directory"
    assert script.calls == []


def test_nothing_recorded(run: Run, server: str, script: Script) -> None:
    script.succeeded = False
    result = export(run, server)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "vx: the export wrote nothing: perhaps nothing was recorded at that time"
    assert script.calls[-1] == "destroy"


def test_an_export_that_failed_halfway_gives_what_there_is(
    run: Run, server: str, script: Script, tmp_path: Path
) -> None:
    script.succeeded = False
    script.files = {"a.mp4": b"half"}
    result = export(run, server, "--json")
    assert result.exit_code == 1
    assert (tmp_path / "a.mp4").read_bytes() == b"half"
    document = json.loads(result.stdout)
    assert document["succeeded"] is False
    assert document["files"][0]["saved_as"] == "a.mp4"
    assert document["error"] == {
        "message": "the export failed on the server; the files hold what it could write",
        "code": "",
        "exit_status": 1,
    }


async def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def interrupt_and_wait() -> None:
    await interrupt()
    await asyncio.Event().wait()


def test_ctrl_c_stops_the_session_and_keeps_what_there_is(
    run: Run, server: str, script: Script, tmp_path: Path
) -> None:
    script.files = {"a.mp4": LONG}
    script.states = [RUNNING, RUNNING]
    script.before["state"] = interrupt_and_wait
    result = export(run, server)
    assert result.exit_code == 130
    assert script.calls == ["start", "state", "stop"]
    assert result.stderr.splitlines()[-2:] == [
        f"vx: interrupted; stopping session {ID} on the server (again: leave at once)",
        "vx: the session is stopped, what it had written is kept: "
        f"`vx download --server {server} {ID}` or `vx destroy --server {server} {ID}`",
    ]
    assert names(tmp_path) == []
    # and so it is
    del script.before["state"]
    script.states = []
    assert run("download", ID, "--server", server).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == LONG


def test_ctrl_c_before_the_first_frame_leaves_nothing_on_the_server(run: Run, server: str, script: Script) -> None:
    script.stopped = completed(succeeded=False)
    script.before["state"] = interrupt_and_wait
    result = export(run, server, "--json")
    assert result.exit_code == 130
    assert script.calls == ["start", "state", "stop", "destroy"]
    assert "the session is stopped and removed; it had written nothing" in result.stderr
    assert json.loads(result.stdout) == {"error": {"message": "interrupted", "code": "", "exit_status": 130}}


def test_ctrl_c_while_the_session_starts_stops_it_too(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"1"}
    script.before["start"] = interrupt
    result = export(run, server)
    assert result.exit_code == 130
    assert script.calls == ["start", "stop"]


def test_an_interrupt_does_not_lose_the_id_of_a_session_that_is_starting(tmp_path: Path) -> None:
    calls = []

    class SlowServer:
        def __init__(self) -> None:
            self.asked = asyncio.Event()
            self.answer = asyncio.Event()

        async def start(self, options: mmexport.Options) -> str:
            calls.append("start")
            self.asked.set()
            await self.answer.wait()
            return ID

        async def stop(self, session_id: str) -> mmexport.State:
            calls.append(f"stop {session_id}")
            return completed(mmexport.ResultFile(path="a.mp4"))

    async def main() -> None:
        server = SlowServer()
        order = Order(mmexport.Options(), 0, 1, tmp_path, force=False, keep=False, server_option="")
        exporting = asyncio.create_task(run_export(cast(Client, server), order, Report(quiet=True, terminal=False)))
        await server.asked.wait()
        exporting.cancel()
        await asyncio.sleep(0)
        server.answer.set()
        with pytest.raises(asyncio.CancelledError):
            await exporting

    asyncio.run(main())
    assert calls == ["start", f"stop {ID}"]


def test_a_second_ctrl_c_leaves_at_once(run: Run, server: str, script: Script) -> None:
    script.before["state"] = interrupt_and_wait
    script.before["stop"] = interrupt_and_wait
    result = export(run, server)
    assert result.exit_code == 130
    assert script.calls == ["start", "state", "stop"]
    assert result.stderr.splitlines()[-1].startswith("vx: the session may still be running; `vx download")


@pytest.mark.parametrize(
    ("session_id", "arguments"), [("-7g", "-- -7g"), ("a b; rm -rf ~\x1b", "'a b; rm -rf ~?'"), ("ok", "ok")]
)
def test_suggested_commands_can_be_pasted(tmp_path: Path, session_id: str, arguments: str) -> None:
    class Server:
        async def start(self, options: mmexport.Options) -> str:
            return session_id

        async def until_it_works(self, call: object, backoff: object) -> None:
            raise ClientError("gone", Exit.UNREACHABLE)

    order = Order(mmexport.Options(), 0, 1, tmp_path, force=False, keep=False, server_option=" --server unix:///s")
    with pytest.raises(ClientError) as caught:
        asyncio.run(run_export(cast(Client, Server()), order, Report(quiet=True, terminal=False)))
    assert f"`vx download --server unix:///s {arguments}` or `vx destroy --server unix:///s {arguments}`" in str(
        caught.value
    )


def test_sigterm_does_the_same_with_its_own_status(run: Run, server: str, script: Script) -> None:
    script.files = {"a.mp4": b"1"}

    async def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    script.before["state"] = terminate
    assert export(run, server).exit_code == 143
    assert script.calls == ["start", "state", "stop"]


def test_ctrl_c_during_the_download_keeps_session_and_part(
    run: Run, server: str, script: Script, tmp_path: Path
) -> None:
    script.files = {"a.mp4": LONG}
    script.before["download"] = interrupt_and_wait
    result = export(run, server)
    assert result.exit_code == 130
    assert f"vx: interrupted; session {ID} is kept: `vx download --server" in result.stderr
    assert script.calls == ["start", "state", "download"]
    assert names(tmp_path) == [part_path(tmp_path / "a.mp4", ID, "a.mp4").name]


def test_a_server_that_goes_away_while_it_exports_is_waited_for(
    run: Run, server: str, script: Script, pauses: list[float]
) -> None:
    script.files = {"a.mp4": b"1"}
    script.states = [RUNNING]
    script.refuse = {"state": [(Status.UNAVAILABLE, "restarting")] * 2}
    result = export(run, server)
    assert result.exit_code == 0
    assert result.stderr.count("vx: restarting; trying again in") == 2
    assert pauses[:2] == [0.5, 1]


def test_a_start_is_never_tried_twice(run: Run, server: str, script: Script, pauses: list[float]) -> None:
    script.refuse = {"start": [(Status.UNAVAILABLE, "restarting")]}
    assert export(run, server).exit_code == 4
    assert script.calls == ["start"]
    assert pauses == []


def test_files_purged_meanwhile(run: Run, server: str, script: Script) -> None:
    script.states = [mmexport.State(state=mmexport.EState.S_REMOVED)]
    result = export(run, server)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == f"vx: session {ID} is S_REMOVED: its files are gone"


def test_a_running_session_cannot_be_downloaded(run: Run, server: str, script: Script) -> None:
    script.states = [RUNNING]
    result = run("download", ID, "--server", server)
    assert result.exit_code == 5
    assert result.stderr == f"vx: session {ID} is still running; `vx stop` ends it\n"
