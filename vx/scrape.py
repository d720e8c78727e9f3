"""A page over HTTP, for those who scrape metrics: GET /metrics and nothing else, one request a connection.

It is meant for loopback and one or two scrapers, and bounded so that nobody else is hurt by whoever else comes by.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 8
_REQUEST_S = 5.0
"""For the request to come, and for the answer to go."""
_LARGEST_REQUEST = 8 << 10


async def serve(listener: socket.socket, content_type: str, page: Callable[[], Awaitable[bytes]]) -> None:
    """Answer until cancelled. Takes over the listener. `page` may raise OSError where it cannot be made for now."""
    limit = trio.CapacityLimiter(_MOST_CONNECTIONS)

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                limit.acquire_nowait()
            except trio.WouldBlock:
                return
            try:
                with trio.move_on_after(_REQUEST_S):
                    await _answer(stream, content_type, page)
            except trio.BrokenResourceError:
                pass  # it has gone
            finally:
                limit.release()

    listener.setblocking(False)
    await trio.serve_listeners(answer, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


async def _answer(stream: trio.SocketStream, content_type: str, page: Callable[[], Awaitable[bytes]]) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        more = await stream.receive_some(_LARGEST_REQUEST)
        received += more
        if not more or len(received) > _LARGEST_REQUEST:
            await stream.send_all(_response("400 Bad Request", "text/plain", b"a request of up to 8 KiB is expected\n"))
            return
    match received.split(b"\r\n", 1)[0].split(b" "):
        case [b"GET", target, b"HTTP/1.1" | b"HTTP/1.0"] if target.partition(b"?")[0] == b"/metrics":
            answer = await _page(content_type, page)
        case [b"GET", _, b"HTTP/1.1" | b"HTTP/1.0"]:
            answer = _response("404 Not Found", "text/plain", b"there is /metrics\n")
        case [_, _, b"HTTP/1.1" | b"HTTP/1.0"]:
            answer = _response("405 Method Not Allowed", "text/plain", b"GET is allowed\n", "Allow: GET\r\n")
        case _:
            answer = _response("400 Bad Request", "text/plain", b"this is no request of HTTP/1.1\n")
    await stream.send_all(answer)
    await stream.send_eof()


async def _page(content_type: str, page: Callable[[], Awaitable[bytes]]) -> bytes:
    try:
        return _response("200 OK", content_type, await page())
    except OSError as error:  # no file descriptor is left, for one
        log.warning("the page of metrics cannot be made: %s", error.strerror)
        return _response("503 Service Unavailable", "text/plain", b"try again later\n")


def _response(status: str, content_type: str, body: bytes, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
