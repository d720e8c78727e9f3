"""HTTP/2 frames as bytes: those that come are told apart before too much of one is kept, and bulk is cut into DATA."""

from __future__ import annotations

import struct
from collections import deque

from h2.exceptions import DenialOfServiceError, FrameTooLargeError
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import Frame

from vx.rpc.wire import Buffer

MAX_HEADER_LIST = 16 * 1024
"""Bytes of one call's headers, as RFC 9113 counts them (6.5.2); encoded they may take no more."""
_MAX_CONTINUATIONS = 8
"""Frames that the headers of one call may be spread over."""

_HEADER = struct.Struct("!BHBBL")
HEADER_SIZE = _HEADER.size
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 0x1, 0x4


def data_header(size: int, stream_id: int) -> bytes:
    """The header of a DATA frame."""
    return _HEADER.pack(size >> 16, size & 0xFFFF, _DATA, 0, stream_id)


def headers_frame(block: bytes, stream_id: int, *, end_stream: bool) -> bytes:
    """A HEADERS frame with a whole, short block."""
    return _HEADER.pack(0, len(block), _HEADERS, _END_HEADERS | _END_STREAM * end_stream, stream_id) + block


def data_frames(stream_id: int, pending: deque[memoryview], size: int, max_frame: int) -> list[Buffer]:
    """Take `size` bytes, at least one, from the front of `pending`, as DATA frames of at most `max_frame`."""
    frames: list[Buffer] = []
    # The hot loop of every download: a view is cut where it lies, and not put back for each frame.
    append, pop = frames.append, pending.popleft
    full = data_header(max_frame, stream_id)
    view = pop()
    at, length = 0, len(view)
    while size:
        if size >= max_frame:
            left = max_frame
            append(full)
        else:
            left = size
            append(data_header(left, stream_id))
        size -= left
        while left:
            if at == length:
                view = pop()
                at, length = 0, len(view)
            end = at + left
            if end < length:
                append(view[at:end])
                at = end
                break
            append(view[at:] if at else view)
            left -= length - at
            at = length
    if at < length:
        pending.appendleft(view[at:])
    return frames


class FrameReader(FrameBuffer):
    """h2's parser of frames, which now says no before it has kept more than it should."""

    def check_rest(self) -> None:
        """FrameTooLargeError if the frame that has begun is too long: h2 would look when all of it has come."""
        if len(self._data) >= 3:
            size = int.from_bytes(self._data[:3], "big")
            if size > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {size} bytes; at most {self.max_frame_size} are allowed")

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        frame = super()._update_header_buffer(f)
        if frame is None:  # it is a part of a header block
            block = self._headers_buffer
            if len(block) > _MAX_CONTINUATIONS or sum(len(part.data) for part in block) > MAX_HEADER_LIST:
                raise DenialOfServiceError(
                    f"a header block without end; allowed are {_MAX_CONTINUATIONS} frames and {MAX_HEADER_LIST} bytes"
                )
        return frame

    @property
    def is_amid(self) -> bool:
        """Whether a frame, or a header block, has begun and not ended."""
        return bool(self._data or self._headers_buffer)
