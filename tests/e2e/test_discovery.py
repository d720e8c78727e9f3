"""Cameras, archives and recorded stretches, as a client finds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client import Client, refused
from tests.server_process import started_servers
from tests.stubs import Stubs
from tools.make_recordings import segment_path
from vx.timestamps import parse_timestamp

T0 = parse_timestamp("20260511T080000")
MINUTE_US = 60_000_000
TO_1900_MS = 2_208_988_800_000
CAMERAS = 130
BLUE = "hosts/A/MultimediaStorage.Blue/MultimediaStorage"


@pytest.fixture(scope="module")
def client(stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Many cameras on the nodes A and B; the first one has ten minutes of recordings, without the fifth and sixth."""
    folder = tmp_path_factory.mktemp("discovery")
    pattern = f"{folder}/recordings/%Y-%m-%d/%H-%M-%S.mp4"
    for minute in (0, 1, 2, 3, 6, 7, 8, 9):
        path = segment_path(pattern, T0 + minute * MINUTE_US, "UTC")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        written_s = (T0 + (minute + 1) * MINUTE_US) // 1_000_000
        os.utime(path, (written_s, written_s))
    config = ""
    for number in range(1, CAMERAS + 1):
        node = "AB"[number % 2 == 0]
        config += f"""
[[camera]]
access_point = "hosts/{node}/DeviceIpint.{number}/SourceEndpoint.video:0:0"
display_id = "{number}"
display_name = "{"Entrance" if number == 1 else f"Camera {number}"}"
  [[camera.archive]]
  storage = "hosts/{node}/MultimediaStorage.Blue/MultimediaStorage"
  path = "{pattern if number == 1 else f"{folder}/none/{number}/%s.mp4"}"
"""
    config += f"""
  [[camera.archive]]
  storage = "hosts/B/MultimediaStorage.Red/MultimediaStorage"
  path = "{folder}/red/%s.mp4"
"""
    with started_servers(folder) as start:
        client = Client(stubs, start(config).address)
        yield client
        client.channel.close()


def cameras(client: Client, stubs: Stubs, **fields: Any) -> list[Any]:
    stub = stubs.domain_grpc.DomainServiceStub(client.channel)
    return list(stub.ListCameras(stubs.domain.ListCamerasRequest(**fields)))


def ids(pages: list[Any]) -> list[int]:
    return [int(camera.display_id) for page in pages for camera in page.items]


def test_cameras_come_in_pages(client: Client, stubs: Stubs) -> None:
    pages = cameras(client, stubs)
    assert [len(page.items) for page in pages] == [100, 30]
    assert ids(pages) == list(range(1, CAMERAS + 1))
    assert (bool(pages[0].next_page_token), pages[1].next_page_token) == (True, "")
    rest = cameras(client, stubs, page_token=pages[0].next_page_token, page_size=7)
    assert ids(rest) == list(range(101, CAMERAS + 1))
    assert [len(page.items) for page in rest] == [7, 7, 7, 7, 2]


def test_a_camera_with_all_that_belongs_to_it(client: Client, stubs: Stubs) -> None:
    (page,) = cameras(client, stubs, filter="entr", view=stubs.domain.VIEW_MODE_FULL)
    (camera,) = page.items
    assert camera.access_point == "hosts/A/DeviceIpint.1/SourceEndpoint.video:0:0"
    assert (camera.display_name, camera.enabled, camera.is_activated) == ("Entrance", True, True)
    assert camera.has_archive_bindings.value
    (stream,) = camera.video_streams
    assert stream.stream_acess_point == camera.access_point
    (binding,) = camera.archive_bindings
    assert (binding.storage, binding.is_default, binding.archive.access_point) == (BLUE, True, BLUE)
    assert binding.sources[0].media_source == camera.access_point
    (bare,) = cameras(client, stubs, filter="entr")[0].items
    assert (len(bare.video_streams), len(bare.archive_bindings), bare.has_archive_bindings.value) == (0, 0, True)


def test_filters(client: Client, stubs: Stubs) -> None:
    assert ids(cameras(client, stubs, nodes=["B"], filter="camera 12")) == [12, *range(120, CAMERAS, 2)]
    assert ids(cameras(client, stubs, nodes=["hosts/A"]))[:3] == [1, 3, 5]
    assert cameras(client, stubs, filter="no such thing") == []
    with refused("UNIMPLEMENTED", "group_ids: this server has no groups of cameras"):
        cameras(client, stubs, group_ids=["x"])
    with refused("INVALID_ARGUMENT", "view: 7 is not a value of EViewMode"):
        cameras(client, stubs, view=7)
    with refused("INVALID_ARGUMENT", "page_token: 'x' is not a token that this server gave"):
        cameras(client, stubs, page_token="x")


def test_archives(client: Client, stubs: Stubs) -> None:
    stub = stubs.domain_grpc.DomainServiceStub(client.channel)
    (page,) = stub.ListArchives(stubs.domain.ListArchivesRequest(view=stubs.domain.VIEW_MODE_FULL))
    assert [(archive.access_point, len(archive.bindings)) for archive in page.items] == [
        (BLUE, 65),
        ("hosts/B/MultimediaStorage.Blue/MultimediaStorage", 65),
        ("hosts/B/MultimediaStorage.Red/MultimediaStorage", 1),
    ]
    assert page.items[0].bindings[0].camera.display_name == "Entrance"
    assert [binding.is_default for binding in page.items[2].bindings] == [False]
    (bare,) = stub.ListArchives(stubs.domain.ListArchivesRequest(filter="RED"))
    assert [(archive.display_name, len(archive.bindings)) for archive in bare.items] == [("Red", 0)]


def history(client: Client, stubs: Stubs, begin: float = 0, end: float = 60, **fields: Any) -> tuple[int, list[Any]]:
    """Result, and intervals in minutes since T0."""
    (camera,) = cameras(client, stubs, filter="entr", view=1)[0].items
    request = stubs.archive.GetHistory2Request(
        access_point=fields.pop("access_point", camera.archive_bindings[0].sources[0].access_point),
        begin_time=round(T0 / 1000 + begin * 60_000) + TO_1900_MS,
        end_time=round(T0 / 1000 + end * 60_000) + TO_1900_MS,
        **fields,
    )
    answer = stubs.archive_grpc.ArchiveServiceStub(client.channel).GetHistory2(request)
    zero = T0 // 1000 + TO_1900_MS
    found = [((span.begin_time - zero) / 60_000, (span.end_time - zero) / 60_000) for span in answer.intervals]
    return answer.result, found


def test_recorded_stretches(client: Client, stubs: Stubs) -> None:
    full, partial = stubs.archive.GetHistory2Response.FULL, stubs.archive.GetHistory2Response.PARTIAL
    assert history(client, stubs) == (full, [(0, 4), (6, 10)])
    assert history(client, stubs, scan_mode=stubs.archive.GetHistory2Request.SM_APPROXIMATE) == (
        full,
        [(0, 4), (6, 10)],
    )
    assert history(client, stubs, 1.5, 7) == (full, [(1.5, 4), (6, 7)])
    assert history(client, stubs, 7, 1.5) == (full, [(1.5, 4), (6, 7)])
    assert history(client, stubs, min_gap_ms=2 * 60_000) == (full, [(0, 10)])
    assert history(client, stubs, min_gap_ms=2 * 60_000 - 1) == (full, [(0, 4), (6, 10)])
    assert history(client, stubs, max_count=1) == (partial, [(0, 4)])
    assert history(client, stubs, max_count=2) == (full, [(0, 4), (6, 10)])
    assert history(client, stubs, -1000, -900) == (full, [])


def test_history_of_what_is_not_there(client: Client, stubs: Stubs) -> None:
    for name in ("", "hosts/A/MultimediaStorage.Blue/Sources/src.x", "../../etc"):
        text = f"access_point: there is no storage source {name!r}; ListCameras tells those of each camera"
        with refused("NOT_FOUND", text):
            history(client, stubs, access_point=name)
    with refused("INVALID_ARGUMENT", "end_time: is the same as begin_time; the range is empty"):
        history(client, stubs, 1, 1)
    with refused(
        "INVALID_ARGUMENT",
        "begin_time: -1 is not a time; allowed are milliseconds since 1900-01-01 UTC, 0 to 281474976710656",
    ):
        history(client, stubs, -(T0 / 1000 + TO_1900_MS + 1) / 60_000, 0)
    (camera,) = cameras(client, stubs, filter="130", view=1)[0].items
    for binding in camera.archive_bindings:
        partial, found = history(client, stubs, access_point=binding.sources[0].access_point)
        assert (partial, found) == (stubs.archive.GetHistory2Response.PARTIAL, [])  # its folder is not there
