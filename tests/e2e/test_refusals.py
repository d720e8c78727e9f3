"""The error rules of the contract: the code, and the text with the field's path, as a client gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.e2e.client import CAMERA, Client, refused
from tests.server_process import ServerProcess, started_servers
from tests.stubs import Stubs

BARE_CAMERA = "hosts/Server1/DeviceIpint.9/SourceEndpoint.video:0:0"
START, END = "20260511T080411", "20260511T080511"
INVALID, NOT_FOUND, UNBUILT = "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"


@pytest.fixture(scope="module")
def client(stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("refusals")
    config = f"""
[[camera]]
access_point = "{CAMERA}"
display_name = "Entrance"
  [[camera.archive]]
  storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
  path = "{folder}/%s.mp4"

[[camera]]
access_point = "{BARE_CAMERA}"
"""
    with started_servers(folder) as start:
        server: ServerProcess = start(config)
        client = Client(stubs, server.address)
        yield client
        assert client.pages() == []  # after all of it the server still serves, and no session was begun
        client.channel.close()
        assert "Traceback" not in server.log  # a refusal is an answer, not a fault of the server


def _set(path: str, value: Any) -> Callable[[Client, Any], None]:
    """Change a field of the options: `archive.sources[0].origin`."""

    def change(client: Client, options: Any) -> None:
        *parents, name = path.split(".")
        target = options
        for parent in parents:
            field, _, index = parent.rstrip("]").partition("[")
            target = getattr(target, field)
            if index:
                target = target[int(index)]
        setattr(target, name, value)

    return change


def _setting(where: str, kind: str, **values: Any) -> Callable[[Client, Any], None]:
    """Add a setting of one kind to the list at `where`."""

    def change(client: Client, options: Any) -> None:
        target = options
        for part in where.split("."):
            target = target[0] if part == "0" else getattr(target, part)
        made = {key: value(client.export) if callable(value) else value for key, value in values.items()}
        target.append(getattr(client.export, kind)(**made))

    return change


def _colour(export: Any) -> Any:
    return export.ColorInfo(alpha=1)


def _clear(*fields: str) -> Callable[[Client, Any], None]:
    def change(client: Client, options: Any) -> None:
        for field in fields:
            target = options
            *parents, name = field.split(".")
            for parent in parents:
                target = getattr(target, parent)
            target.ClearField(name)

    return change


def _live(**fields: Any) -> Callable[[Client, Any], None]:
    def change(client: Client, options: Any) -> None:
        options.live.discrete = True
        for name, value in fields.items():
            if name == "duration":
                options.live.duration.FromTimedelta(value)
            else:
                options.live.sources.add(**{name: value})

    return change


def _mask(where: str, begin: str, end: str) -> Callable[[Client, Any], None]:
    """Add a range to the mask of all sources, or of one."""

    def change(client: Client, options: Any) -> None:
        target = options
        for part in where.split("."):
            target = target[int(part)] if part.isdigit() else getattr(target, part)
        target.timeline_mask.add(begin_time=begin, end_time=end)

    return change


def _masked_snapshot(client: Client, options: Any) -> None:
    options.snapshot.format = 1
    options.archive.timeline_mask.add(begin_time=START, end_time=END)


def _source(**fields: Any) -> Callable[[Client, Any], None]:
    def change(client: Client, options: Any) -> None:
        del options.archive.sources[:]
        source = options.archive.sources.add(origin=CAMERA)
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(source, name).extend(value)
            else:
                setattr(source, name, value)

    return change


def _mask_filter(client: Client, options: Any) -> None:
    options.archive.sources[0].mask_filter["d"].allow = True


def _pdf_layout_of_jpeg(client: Client, options: Any) -> None:
    options.snapshot.settings.add(pdf_layout=1)


def _face(client: Client, options: Any) -> None:
    options.snapshot.format = 2
    options.snapshot.settings.add(face_info=client.export.FocusObject(item="ann"))


def _unknown_field(client: Client, options: Any) -> None:
    options.archive.MergeFromString(b"\xa0\x06\x01")  # field 100


def common(**values: Any) -> Callable[[Client, Any], None]:
    return _setting("settings", "CommonSetting", **values)


def stream(**values: Any) -> Callable[[Client, Any], None]:
    return _setting("stream.settings", "StreamSetting", **values)


def of_source(**values: Any) -> Callable[[Client, Any], None]:
    return _setting("archive.sources.0.settings", "SourceSetting", **values)


REQUIRED_TIME = "YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601"
A_TIME = "YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601 with Z or an offset"
RULES = [
    # what is changed in a good request, the code, the text
    (_clear("archive"), INVALID, "archive: is required (the recordings to export from), or live"),
    (_clear("stream"), INVALID, "stream: is required, or snapshot"),
    (_clear("archive.sources"), INVALID, "archive.sources: is empty; at least one source is required"),
    (_source(origin=""), INVALID, "archive.sources[0].origin: is required: the access point of a camera"),
    (_source(origin="hosts/x"), NOT_FOUND, "archive.sources[0].origin: there is no camera 'hosts/x'"),
    (
        _source(storages=["nowhere"]),
        NOT_FOUND,
        f"archive.sources[0].storages[0]: there is no archive 'nowhere' of the camera '{CAMERA}'",
    ),
    (
        _source(origin=BARE_CAMERA),
        NOT_FOUND,
        f"archive.sources[0].origin: the camera '{BARE_CAMERA}' has no archive",
    ),
    (_source(storages=["a", "b"]), UNBUILT, "archive.sources[0].storages[1]: one archive at a time is exported"),
    (
        _source(tracks=["video", "1"]),
        INVALID,
        "archive.sources[0].tracks[1]: '1' is not a track; allowed are video, audio, and video:N, audio:N",
    ),
    (
        _source(tracks=["video", "video:1"]),
        UNBUILT,
        "archive.sources[0].tracks[1]: 'video:1': one track of a kind is exported",
    ),
    (
        _source(tracks=["audio"]),
        UNBUILT,
        "archive.sources[0].tracks: sound without a picture is not exported; add video",
    ),
    (
        _mask("archive.sources.0", START, ""),
        INVALID,
        f"archive.sources[0].timeline_mask[0].end_time: is required: {REQUIRED_TIME}",
    ),
    (
        _mask("archive.sources.0", "20260511T080000", START),
        INVALID,
        "archive.sources[0].timeline_mask: leaves nothing of start_timestamp to end_timestamp",
    ),
    (
        _mask_filter,
        UNBUILT,
        "archive.sources[0].mask_filter: this server has no detectors whose tracks it could mask",
    ),
    (
        of_source(mask_detector="x"),
        UNBUILT,
        "archive.sources[0].settings[0].mask_detector: this server has no detectors whose objects it could mask",
    ),
    (
        of_source(track_color=_colour),
        UNBUILT,
        "archive.sources[0].settings[0].track_color: this server has no detectors whose tracks it could draw",
    ),
    (
        of_source(fisheye_info=lambda export: export.FisheyeInfo()),
        UNBUILT,
        "archive.sources[0].settings[0].fisheye_info: this server does not straighten fisheye pictures",
    ),
    (_mask("archive", "soon", END), INVALID, f"archive.timeline_mask[0].begin_time: 'soon' is not a time: {A_TIME}"),
    (
        _mask("archive", START, START),
        INVALID,
        "archive.timeline_mask[0].end_time: is the same as begin_time; the range is empty",
    ),
    (
        _mask("archive", END, "20260511T090000"),
        INVALID,
        "archive.timeline_mask: leaves nothing of start_timestamp to end_timestamp",
    ),
    (_masked_snapshot, UNBUILT, "archive.timeline_mask: is for clips; a snapshot has one moment"),
    (
        _set("max_file_size", 5000),
        INVALID,
        "max_file_size: is 5000; not even a picture fits into less than 16384",
    ),
    (_live(), INVALID, "live.sources: is empty; at least one source is required"),
    (_live(origin="x"), NOT_FOUND, "live.sources[0].origin: there is no camera 'x'"),
    (
        _live(origin=CAMERA),
        "FAILED_PRECONDITION",
        f"live.sources[0].origin: the camera {CAMERA!r} cannot be seen live: it has no live address",
    ),
    (
        _set("archive.start_timestamp", ""),
        INVALID,
        "archive.start_timestamp: is required: YYYYMMDDTHHMMSS[.ffffff] in UTC, or ISO 8601",
    ),
    (
        _set("archive.start_timestamp", "yesterday"),
        INVALID,
        f"archive.start_timestamp: 'yesterday' is not a time: {A_TIME}",
    ),
    (
        _set("archive.end_timestamp", "20261341T000000"),
        INVALID,
        f"archive.end_timestamp: '20261341T000000' is not a time: {A_TIME}",
    ),
    (
        _set("archive.end_timestamp", START),
        INVALID,
        "archive.end_timestamp: is the same as start_timestamp; the range is empty",
    ),
    (
        _set("stream.format", 3),
        UNBUILT,
        "stream.format: EXE: this server makes no programs; MP4 plays everywhere, also MKV",
    ),
    (_set("stream.format", 77), INVALID, "stream.format: 77 is not a value of StreamType.EFormat"),
    (stream(video_quality=9), INVALID, "stream.settings[0].video_quality: 9 is not a value of EQuality"),
    (stream(video_quality=-1), INVALID, "stream.settings[0].video_quality: -1 is not a value of EQuality"),
    (stream(video_codec=7), INVALID, "stream.settings[0].video_codec: 7 is not a value of EVideoCodec"),
    (
        stream(audio_codec=1),
        UNBUILT,
        "stream.settings[0].audio_codec: MP4 has no place for AC_G711 here; AVI has, or ask for AC_MP2 or AC_DEFAULT",
    ),
    (stream(audio_codec=9), INVALID, "stream.settings[0].audio_codec: 9 is not a value of EAudioCodec"),
    (stream(frame_frequency=4), INVALID, "stream.settings[0].frame_frequency: 4 is not a value of EFrameFrequency"),
    (
        stream(time_lapse=lambda export: export.TimeLapse()),
        INVALID,
        "stream.settings[0].time_lapse: has neither fps nor speed",
    ),
    (
        stream(time_lapse=lambda export: export.TimeLapse(speed=-2)),
        INVALID,
        "stream.settings[0].time_lapse.speed: is -2; 0.1 to 10000 times faster are allowed, or 0 to leave it open",
    ),
    (
        stream(time_lapse=lambda export: export.TimeLapse(fps=float("nan"))),
        INVALID,
        "stream.settings[0].time_lapse.fps: is nan; "
        "0.001 to 240 key frames a second are allowed, or 0 to leave it open",
    ),
    (
        stream(password="s3cret" * 200),
        INVALID,
        "stream.settings[0].password: has 1200 characters; at most 1000 are allowed",
    ),
    (stream(), INVALID, "stream.settings[0]: holds no setting"),
    (_set("snapshot.format", 3), INVALID, "snapshot.format: 3 is not a value of SnapshotType.EFormat"),
    (_pdf_layout_of_jpeg, INVALID, "snapshot.settings[0].pdf_layout: is for snapshots in the format PDF"),
    (_face, UNBUILT, "snapshot.settings[0].face_info: this server shows no faces beside a picture"),
    (common(timezone=9000), INVALID, "settings[0].timezone: is 9000; an offset from UTC in minutes, -840 to 840"),
    (common(comment="x" * 10_001), INVALID, "settings[0].comment: has 10001 characters; at most 10000 are allowed"),
    (_set("cloud_export", True), UNBUILT, "cloud_export: this server has no cloud to export to"),
    (
        _set("store_result_by_export_agent", True),
        "FAILED_PRECONDITION",
        "store_result_by_export_agent: the agent hosts/Server1/MMExportAgent.0 has no directory to store results in",
    ),
    (_set("external_directory", "/etc"), INVALID, "external_directory: '/etc' is not allowed; allowed is none"),
    (
        _set("export_agent_access_point", "hosts/x/MMExportAgent.0"),
        NOT_FOUND,
        "export_agent_access_point: there is no export agent 'hosts/x/MMExportAgent.0'",
    ),
    (_unknown_field, UNBUILT, "archive.100: this server does not know this field"),
]


@pytest.mark.parametrize(("change", "code", "text"), RULES, ids=[rule[2].split(":")[0] for rule in RULES])
def test_options_are_refused_with_their_path(
    client: Client, change: Callable[[Client, Any], None], code: str, text: str
) -> None:
    options = client.clip(START, END)
    change(client, options)
    with refused(code, f"session_options.{text}"):
        client.start(options)


def test_a_duration_that_protobuf_does_not_know_is_malformed(client: Client) -> None:
    options = client.clip(START, END)
    options.live.duration.seconds = 1 << 62
    with refused("INTERNAL", "malformed request: StartSessionRequest: a duration or a time is out of range"):
        client.start(options)


def test_of_a_setting_given_twice_the_last_counts(client: Client) -> None:
    options = client.clip(START, END)
    for time_format in ("%Y", "%Q"):
        options.settings.add(timestamp_format=time_format)
    with pytest.raises(grpc.RpcError, match=r"session_options.settings\[1\].timestamp_format: '%Q' is not known"):
        client.start(options)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "x\0y", ""])
def test_no_path_leads_to_the_disk(client: Client, path: str) -> None:
    session_id = client.start(client.clip(START, END, settings=[client.export.CommonSetting(file_name="../x")]))
    client.wait_completed(session_id)
    with refused("NOT_FOUND", f"file_path: the session has no file {path!r}"):
        client.download(session_id, path)
    client.destroy(session_id)


def test_a_session_that_does_not_exist(client: Client) -> None:
    for call in (client.state, client.stop, client.destroy, lambda session: client.download(session, "x")):
        for session_id in ("", "x", "../..", "0" * 10_000):
            with refused("NOT_FOUND", "There is no session with provided ID"):
                call(session_id)


def test_a_chunk_must_fit_what_clients_take(client: Client) -> None:
    with refused(INVALID, "chunk_size_kb: is 4096; at most 4095 is allowed"):
        client.download("x", "y", kb=4096)


@pytest.mark.parametrize("token", ["after", "after-x", "before-3", "after-" + "9" * 30, "ü"])
def test_a_page_token_of_somebody_else(client: Client, token: str) -> None:
    with refused(INVALID, f"page_token: {token!r} is not a token that this server gave"):
        client.pages(token=token)


def test_a_negative_page_size(client: Client) -> None:
    with refused(INVALID, "page_size: is -1; 0 (for 100) to 1000 are allowed"):
        client.pages(size=-1)


def test_what_asks_for_nothing_special_is_taken(client: Client) -> None:
    export = client.export
    options = client.clip(
        START,
        END,
        settings=[
            export.CommonSetting(timezone=-480),
            export.CommonSetting(burn_subtitle=False),
            export.CommonSetting(apply_mask=False),
            export.CommonSetting(file_name="evidence"),
        ],
    )
    options.stream.settings.extend(
        [
            export.StreamSetting(video_quality=export.C_NORMAL),
            export.StreamSetting(video_codec=export.VC_DEFAULT),
            export.StreamSetting(frame_frequency=export.FF_ORIGINAL),
            export.StreamSetting(password=""),
        ]
    )
    session_id = client.start(options)
    client.wait_completed(session_id)
    client.destroy(session_id)
