"""The connection core under mutated conversations: whatever comes, it ends in good order.

A conversation of a good client is made up, and then frames of it are dropped, doubled, swapped, cut, changed, or
followed by random ones; it arrives in pieces of any size, over a wire that may be full or break. In memory and in
virtual time.
`VX_FUZZ_EXAMPLES=100000` looks further than the few hundred examples of every run, and elsewhere each time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import trio
import trio.testing
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame
from hypothesis import HealthCheck, example, given, settings

from tests.rpc import peers, probe
from tests.rpc.peers import GREETING, PREFACE, PROBE_PATH, InMemory, prefixed, raw_frame, update
from tests.rpc.probe import Note

EXAMPLES = int(os.environ.get("VX_FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
PATIENCE_S = 1000
"""Virtual seconds after which every connection whose peer has fallen silent has ended."""

# ---- conversations, as lists of frames

_numbers = st.one_of(st.sampled_from([0, 1, 2**14, 2**16 - 1, 2**31 - 1]), st.integers(0, 2**31 - 1))
_stream_ids = st.one_of(st.sampled_from([1, 3, 5, 7, 9]), st.sampled_from([0, 2, 11, 2**31 - 1]))
_notes = st.builds(
    Note,
    text=st.sampled_from(["", "vx", "grpc", "group", "long", "fail", "9", "5000"]),
    data=st.binary(max_size=40),
    count=st.integers(0, 5),
)
_methods = st.sampled_from(
    ["Echo", "Metadata", "Hold", "Fail", "Count", "HoldStream", "Bulk", "Collect", "Chat", "Nonsense"]
)
_extra_headers = st.lists(
    st.sampled_from(
        [
            ("grpc-timeout", "1S"),
            ("grpc-timeout", "0n"),
            ("grpc-timeout", "9" * 400 + "H"),
            ("grpc-encoding", "gzip"),
            ("content-type", "text/html"),
            (":method", "GET"),
            ("blob-bin", "!"),
            ("content-length", "3"),
            (":status", "100"),
            ("", ""),
        ]
    ),
    max_size=1,
)


@st.composite
def _calls(draw: st.DrawFn, stream_id: int) -> list[bytes]:
    """A call, from its headers to the end of its requests, or to its cancellation."""
    fields = peers.fields(PROBE_PATH + draw(_methods), *draw(_extra_headers))
    frames = [peers.headers(stream_id, peers.block(fields), *draw(st.sampled_from([[], [], [], ["END_STREAM"]])))]
    body = b"".join(prefixed(bytes(note)) for note in draw(st.lists(_notes, min_size=1, max_size=3)))
    cut = draw(st.integers(0, len(body)))
    frames += [peers.data(stream_id, body[:cut]), peers.data(stream_id, body[cut:])]
    frames.append(
        draw(
            st.sampled_from(
                [
                    peers.data(stream_id, b"", "END_STREAM"),
                    peers.headers(stream_id, peers.block([("x-checksum", "1")]), "END_STREAM"),
                    RstStreamFrame(stream_id, error_code=8).serialize(),
                    b"",
                ]
            )
        )
    )
    return frames


_setting_values = st.dictionaries(
    st.one_of(st.sampled_from([int(code) for code in SettingCodes]), st.integers(0, 2**16 - 1)), _numbers, max_size=3
)
_other_frames = st.one_of(
    st.builds(lambda stream_id, by: update(stream_id, by), _stream_ids, _numbers),
    st.builds(lambda values: SettingsFrame(0, settings=values).serialize(), _setting_values),
    st.just(SettingsFrame(0, flags=["ACK"]).serialize()),
    st.just(PingFrame(0, b"12345678").serialize()),
    st.just(PingFrame(0, b"vx-drain", flags=["ACK"]).serialize()),
    st.just(GoAwayFrame(0).serialize()),
    st.builds(lambda stream_id: PriorityFrame(stream_id or 1, depends_on=5).serialize(), _stream_ids),
    st.builds(lambda stream_id: RstStreamFrame(stream_id or 1).serialize(), _stream_ids),
    st.builds(
        lambda kind, stream_id, payload, flags: raw_frame(kind, stream_id, payload, flags=flags),
        st.integers(0, 12),
        _stream_ids,
        st.binary(max_size=40),
        st.integers(0, 255),
    ),
)


@st.composite
def _conversations(draw: st.DrawFn) -> list[bytes]:
    calls = [draw(_calls(stream_id)) for stream_id in range(1, 2 * draw(st.integers(0, 6)) + 1, 2)]
    frames: list[bytes] = []
    while calls:  # their frames mixed, each call's in order
        call = draw(st.sampled_from(calls))
        frames.append(call.pop(0))
        if not call:
            calls.remove(call)
        if draw(st.integers(0, 3)) == 0:
            frames.append(draw(_other_frames))
    return frames + draw(st.lists(_other_frames, max_size=3))


# ---- mutations


def _drop(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    del frames[at]


def _double(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    frames.insert(draw(st.integers(0, len(frames))), frames[at])


def _swap(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    other = draw(st.integers(0, len(frames) - 1))
    frames[at], frames[other] = frames[other], frames[at]


def _cut(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    frames[at] = frames[at][: draw(st.integers(0, len(frames[at])))]


def _flip(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    if frames[at]:
        changed = bytearray(frames[at])
        # More often in the nine bytes of its header, where a byte means most.
        position = draw(st.one_of(st.integers(0, min(8, len(changed) - 1)), st.integers(0, len(changed) - 1)))
        changed[position] ^= draw(st.integers(1, 255))
        frames[at] = bytes(changed)


def _add(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    frames.insert(at, draw(st.one_of(_other_frames, st.binary(max_size=60))))


def _repeat(frames: list[bytes], at: int, draw: st.DrawFn) -> None:
    frames[at] *= draw(st.sampled_from([2, 20, 3000]))


_MUTATIONS: list[Callable[[list[bytes], int, st.DrawFn], None]] = [
    _drop,
    _double,
    _swap,
    _cut,
    _flip,
    _flip,
    _add,
    _repeat,
]


@st.composite
def _streams(draw: st.DrawFn) -> list[bytes]:
    """What arrives: a mutated conversation, in pieces."""
    frames = draw(_conversations())
    for _ in range(draw(st.integers(0, 4))):
        if frames:
            draw(st.sampled_from(_MUTATIONS))(frames, draw(st.integers(0, len(frames) - 1)), draw)
    received = draw(st.sampled_from([GREETING, GREETING, GREETING, PREFACE, b""])) + b"".join(frames)
    size = draw(st.sampled_from([16384, 16384, 100, 7]))
    if len(received) > 20_000:
        size = 16384
    return [received[at : at + size] for at in range(0, len(received), size)]


@dataclass(frozen=True)
class Weather:
    """What the wire does beside delivering."""

    room: float = float("inf")
    """Bytes that the peer reads before it stops."""
    more_room: int = 0
    """Bytes that it reads after each piece."""
    pause_s: float = 0
    """Between two pieces."""
    lost_after: int | None = None
    """The number of the piece at which the wire breaks."""
    drained_after: int | None = None
    """The number of the piece at which the server drains."""
    ends: bool = True
    """The peer ends the connection in the end; else it falls silent."""


_weathers = st.builds(
    Weather,
    room=st.sampled_from([float("inf"), float("inf"), 0, 50, 5000]),
    more_room=st.sampled_from([0, 1, 1000]),
    pause_s=st.sampled_from([0, 0, 3, 30]),
    lost_after=st.one_of(st.none(), st.none(), st.integers(0, 20)),
    drained_after=st.one_of(st.none(), st.none(), st.integers(0, 20)),
    ends=st.booleans(),
)


# ---- the test


@contextmanager
def _no_errors_logged() -> Iterator[None]:
    """Nothing of what a peer does is an error of ours."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not _is_the_probes(record):
                found.append(self.format(record))

    handler = Collect(logging.ERROR)
    logger = logging.getLogger("vx")
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
    assert not found, found[0]


def _is_the_probes(record: logging.LogRecord) -> bool:
    """Whether the test's own service failed: it is not made for requests that were mutated."""
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    return traceback is not None and traceback.tb_frame.f_code.co_filename == probe.__file__


def _check_state(memory: InMemory) -> None:
    state: Any = memory.connection._h2
    assert state.inbound_flow_control_window >= 0
    assert state.outbound_flow_control_window >= 0
    # A window below nothing is said only to the peer, who is told so by a GOAWAY.
    if not memory.connection.is_closing():
        assert all(stream.inbound_flow_control_window >= 0 for stream in state.streams.values())
        assert len(memory.connection._processor.streams) <= state.max_streams
        assert set(memory.handler._scopes) == set(memory.connection._processor.streams.values())


async def _converse(pieces: list[bytes], weather: Weather) -> InMemory:
    memory = InMemory(room=weather.room, max_streams=3)
    with trio.fail_after(PATIENCE_S + weather.pause_s * len(pieces)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.run)
            await trio.testing.wait_all_tasks_blocked()
            for number, piece in enumerate(pieces):
                if memory.wire.closed:
                    break
                if number == weather.lost_after:
                    memory.wire.lose()
                if number == weather.drained_after:
                    nursery.start_soon(memory.connection.drain)
                memory.wire.feed(piece)
                memory.wire.make_room(weather.more_room)
                if weather.pause_s:
                    await trio.sleep(weather.pause_s)
                elif len(pieces) < 100 or number % 10 == 0:
                    await trio.testing.wait_all_tasks_blocked()
                _check_state(memory)
            if weather.ends:
                memory.wire.feed(b"")
    return memory


def _check_end(memory: InMemory, weather: Weather) -> None:
    connection: Any = memory.connection
    assert memory.wire.closed
    assert not connection._processor.streams, "a call was not released"
    assert not memory.handler._scopes
    assert memory.arrivals._free == memory.arrivals_limit
    seen = memory.probe.seen
    assert seen.count("hold started") >= seen.count("hold cancelled")
    frames = _sent(memory, weather)
    if frames:
        assert isinstance(frames[0], SettingsFrame)
        last = [index for index, frame in enumerate(frames) if isinstance(frame, GoAwayFrame) and frame.error_code]
        assert last in ([], [len(frames) - 1]), "something follows a GOAWAY that ends the connection"


def _sent(memory: InMemory, weather: Weather) -> list[Frame]:
    sent = bytes(memory.wire.sent)
    if weather.room == float("inf") and not memory.wire.lost:
        return peers.parse_frames(sent)
    whole = 0
    while len(sent) - whole >= 9 and len(sent) - whole >= 9 + int.from_bytes(sent[whole : whole + 3], "big"):
        whole += 9 + int.from_bytes(sent[whole : whole + 3], "big")
    return peers.parse_frames(sent[:whole])  # the peer stopped reading amid a frame


@fuzz
@given(_streams(), _weathers)
@example([GREETING + raw_frame(0, 1, b"\xff", flags=8)], Weather())
@example([GREETING, peers.headers(1, b"\x3f" + b"\xff" * 16000)], Weather())
@example([GREETING + raw_frame(4, 0, bytes([0, 4, 0x80, 0, 0, 0]))], Weather(room=0))
def test_a_conversation_gone_wrong(pieces: list[bytes], weather: Weather) -> None:
    with _no_errors_logged():
        memory = trio.run(_converse, pieces, weather, clock=trio.testing.MockClock(autojump_threshold=0))
    _check_end(memory, weather)


@fuzz
@given(st.lists(st.binary(max_size=300), max_size=20), st.booleans())
def test_noise(pieces: list[bytes], greeted: bool) -> None:
    weather = Weather(ends=False)
    with _no_errors_logged():
        memory = trio.run(
            _converse, [GREETING] * greeted + pieces, weather, clock=trio.testing.MockClock(autojump_threshold=0)
        )
    _check_end(memory, weather)
