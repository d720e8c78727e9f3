"""Bulk cut into DATA frames, and an outbox whose wire takes what it likes."""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
from hyperframe.frame import DataFrame
from hypothesis import given

from tests.rpc.peers import MemoryWire, parse_frames
from vx.rpc.frames import HEADER_SIZE, data_frames
from vx.rpc.outbox import Outbox

_STREAM = 7


@given(
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 50),
    st.data(),
)
def test_frames_and_what_is_left_are_the_bytes_that_there_were(
    parts: list[bytes], max_frame: int, room: int, data: st.DataObject
) -> None:
    whole = b"".join(parts)
    size = data.draw(st.integers(1, len(whole)))
    pending = deque(memoryview(part) for part in parts)
    frames = data_frames(_STREAM, pending, size, max_frame)
    assert b"".join(pending) == whole[size:]
    wire = MemoryWire(room=0)
    outbox = Outbox(wire, lambda error: None)
    count = -(-size // max_frame)
    outbox.put_bulk(frames, size + HEADER_SIZE * count)
    while outbox.size:
        wire.room = room
        outbox._send_some()
    sent = parse_frames(bytes(wire.sent))
    assert all(isinstance(frame, DataFrame) and frame.stream_id == _STREAM and not frame.flags for frame in sent)
    assert [len(frame.data) for frame in sent[:-1]] == [max_frame] * (count - 1)  # type: ignore[attr-defined]
    assert b"".join(frame.data for frame in sent) == whole[:size]  # type: ignore[attr-defined]
