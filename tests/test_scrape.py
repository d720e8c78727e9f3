"""The page of metrics over HTTP, and what it says to whoever else comes by."""

from __future__ import annotations

import errno
import re
import socket

import pytest
import trio
import trio.testing

from vx import scrape
from vx.metrics import CONTENT_TYPE, Statistics, render

Address = tuple[str, int]


@pytest.fixture
async def address(nursery: trio.Nursery) -> Address:
    listener = socket.create_server(("127.0.0.1", 0))

    async def page() -> bytes:
        await trio.lowlevel.checkpoint()
        return b"vx_sessions 1\n"

    nursery.start_soon(scrape.serve, listener, CONTENT_TYPE, page)
    address: Address = listener.getsockname()
    return address


async def ask(address: Address, request: bytes) -> bytes:
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(request)
        answer = b""
        async for data in stream:
            answer += data
        return answer


async def test_a_page_that_cannot_be_made_ends_nothing(nursery: trio.Nursery) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    pages = iter([OSError(errno.EMFILE, "Too many open files"), None])

    async def page() -> bytes:
        await trio.lowlevel.checkpoint()
        if problem := next(pages):
            raise problem
        return b"vx_sessions 1\n"

    nursery.start_soon(scrape.serve, listener, CONTENT_TYPE, page)
    for status in (b"503 Service Unavailable", b"200 OK"):
        answer = await ask(listener.getsockname(), b"GET /metrics HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("line", [b"GET /metrics HTTP/1.1", b"GET /metrics?x=1 HTTP/1.0"])
async def test_the_page(address: Address, line: bytes) -> None:
    head, _, body = (await ask(address, line + b"\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert body == b"vx_sessions 1\n"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; version=0.0.4; charset=utf-8",
        b"Content-Length: 14",
        b"Connection: close",
    ]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01" + bytes(9000), b"400 Bad Request"),
    ],
)
async def test_all_else_is_refused(address: Address, request_: bytes, status: bytes) -> None:
    assert (await ask(address, request_)).startswith(b"HTTP/1.1 " + status)


async def test_who_says_nothing_is_left(address: Address, autojump_clock: trio.testing.MockClock) -> None:
    async with await trio.open_tcp_stream(*address) as silent:
        await silent.send_all(b"GET /metrics HTTP/1.1\r\n")
        with trio.fail_after(10):
            assert await silent.receive_some() == b""


async def test_eight_at_a_time(address: Address) -> None:
    streams = [await trio.open_tcp_stream(*address) for _ in range(8)]
    for stream in streams:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\n")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await ask(address, b"") == b""
    await streams[0].send_all(b"\r\n")
    assert (await streams[0].receive_some()).startswith(b"HTTP/1.1 200 OK")
    for stream in streams:
        await stream.aclose()


def test_prometheus_can_read_it() -> None:
    statistics = Statistics(
        sessions={"queued": 3, "running": 2, "completed": 0},
        succeeded=5,
        failed=1,
        exported_s=12.5,
        exporting_s=0.1,
        exported_bytes=1 << 40,
        speed=250.25,
        kept_bytes=7,
        promised_bytes=8,
    )
    text = render(statistics, sent_bytes=9, free_bytes=None, resident_bytes=10, cpu_s=0.5).decode()
    assert text.endswith("\n")
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[a-z]+"\})? [0-9.]+', line), line
    lines = text.splitlines()
    assert 'vx_sessions{state="running"} 2' in lines
    assert "vx_queue_length 3" in lines
    assert 'vx_exports_total{outcome="failed"} 1' in lines
    assert "vx_exported_bytes_total 1099511627776" in lines
    assert "vx_export_speed 250.25" in lines
    assert not any(line.startswith("vx_results_free_bytes ") for line in lines)
