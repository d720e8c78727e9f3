"""A client of HTTP/2 that is driven frame by frame, to do what no library's client would do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.events
import trio
from hyperframe.frame import Frame

from tests.rpc.probe import LIMIT_S, SERVICE, Note, Probe

_E = TypeVar("_E", bound=h2.events.Event)
Headers = list[tuple[str, str]]


def message(note: Note, *, compressed: int = 0) -> bytes:
    data = bytes(note)
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


class _PatientH2(h2.connection.H2Connection):
    """Goes on after a GOAWAY, as clients do that have calls under way."""

    def _receive_goaway_frame(self, frame: Any) -> Any:
        before = self.state_machine.state
        result = super()._receive_goaway_frame(frame)
        self.state_machine.state = before
        return result


class H2Peer:
    """The client's side of one connection."""

    def __init__(self, stream: trio.abc.Stream, *, limit_s: float = LIMIT_S) -> None:
        self.stream = stream
        self._limit_s = limit_s
        self.h2 = _PatientH2(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self._events: list[h2.events.Event] = []
        self.data: dict[int, bytearray] = {}
        """DATA of each stream."""
        self.closed = False
        """The server has ended the connection."""

    async def shake_hands(self) -> None:
        """Send the preface, and agree on both sides' settings."""
        self.h2.initiate_connection()
        await self.flush()
        await self.next(h2.events.SettingsAcknowledged)
        await self.flush()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def send_frames(self, *frames: Frame) -> None:
        """Send frames that the client's h2 knows nothing of."""
        await self.flush()
        await self.stream.send_all(b"".join(frame.serialize() for frame in frames))

    def begin(
        self,
        method: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        path: str | None = None,
        end_stream: bool = False,
        content_type: str | None = "application/grpc",
    ) -> int:
        """Queue the headers of a call; its stream's id."""
        stream_id = self.h2.get_next_available_stream_id()
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path or f"/{SERVICE}/{method}"),
            (":authority", "test"),
            ("te", "trailers"),
        ]
        if content_type:
            fields.append(("content-type", content_type))
        self.h2.send_headers(stream_id, [*fields, *headers], end_stream=end_stream)
        return stream_id

    def call(self, method: str, note: Note | None = None, **options: Any) -> int:
        """Queue a whole call with one request."""
        stream_id = self.begin(method, **options)
        self.h2.send_data(stream_id, message(note or Note()), end_stream=True)
        return stream_id

    async def hold(self, probe: Probe, method: str = "Hold", note: Note | None = None) -> int:
        """Begin a call that its handler has by then, and keeps until `probe.release` is set; its stream's id."""
        before = probe.seen.count("hold started")
        stream_id = self.call(method, note)
        await self.flush()
        await probe.wait_seen("hold started", before + 1)
        return stream_id

    async def receive(self) -> list[h2.events.Event]:
        """Wait for bytes and take them; no events at the end of the connection."""
        with trio.fail_after(self._limit_s):
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                data = b""
        if not data:
            self.closed = True
            return []
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.data.setdefault(event.stream_id, bytearray()).extend(event.data)
        self._events += events
        return events

    async def next(self, kind: type[_E], *, stream_id: int | None = None) -> _E:
        """The next event of this kind (of this stream), those before it of other kinds kept for later."""
        while True:
            for index, event in enumerate(self._events):
                if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                    del self._events[index]
                    return event
            assert not self.closed, f"the server ended the connection without {kind.__name__}"
            await self.receive()

    async def answer(self, stream_id: int) -> Headers:
        """Headers and trailers of a call, once it has ended."""
        return [field for block in await self.blocks(stream_id) for field in block]

    async def blocks(self, stream_id: int) -> list[Headers]:
        """As `answer`, block by block: one alone is "trailers only"."""
        await self.next(h2.events.StreamEnded, stream_id=stream_id)
        return [
            [(str(name), str(value)) for name, value in event.headers or ()]
            for event in self._events
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived)
            and event.stream_id == stream_id
        ]

    async def status(self, stream_id: int) -> str:
        """grpc-status of a call, once it has ended."""
        return dict(await self.answer(stream_id))["grpc-status"]

    async def reply(self, stream_id: int) -> Note:
        """The one response of a call that succeeds."""
        assert await self.status(stream_id) == "0"
        data = bytes(self.data[stream_id])
        assert data[0] == 0
        assert int.from_bytes(data[1:5], "big") == len(data) - 5
        return Note().parse(data[5:])

    async def wait_closed(self) -> list[h2.events.Event]:
        """All events until the server ends the connection; what it asks meanwhile is answered."""
        while not self.closed:
            with contextlib.suppress(trio.BrokenResourceError):  # it has ended the connection, and may have said why
                await self.flush()
            await self.receive()
        return self._events

    async def synchronize(self) -> None:
        """Wait until the server has handled all that was sent, and we have all that it answered."""
        self.h2.ping(b"sync-vx!")
        await self.flush()
        while (await self.next(h2.events.PingAckReceived)).ping_data != b"sync-vx!":
            pass


async def connect(port: int, *, settings: dict[Any, int] | None = None, host: str = "127.0.0.1") -> H2Peer:
    """A connection whose preface is sent and whose settings are agreed on."""
    peer = H2Peer(await trio.open_tcp_stream(host, port))
    if settings:
        peer.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
    await peer.shake_hands()
    return peer


async def close_all(peers: Sequence[H2Peer]) -> None:
    for peer in peers:
        await trio.aclose_forcefully(peer.stream)
