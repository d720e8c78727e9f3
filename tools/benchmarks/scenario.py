"""What all servers serve: one completed session with one file, which is the same file for all of them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

SERVICE = "/axxonsoft.bl.mmexport.ExportService"
DOWNLOAD, STATE, LIST = f"{SERVICE}/DownloadFile", f"{SERVICE}/GetSessionState", f"{SERVICE}/ListSessions"

PEER_SESSION = "7dmXl0Zq3oCuwMT2Fv9sKpYbHnR5aGJe"
"""The session's id at the peers; as long as one of vx's own, which are random."""
FILE = "Entrance_20260511T080411.155000.mp4"
MIME = "video/mp4"
FIRST_US, LAST_US = 1_778_486_651_155_000, 1_778_490_251_115_000
FIRST, LAST = "20260511T080411.155000", "20260511T090411.115000"
DEFAULT_CHUNK_KB = 64


def load_stubs(folder: Path) -> tuple[Any, Any]:
    """The messages and the service that grpcio's generator made in `folder`."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name = "axxonsoft.bl.mmexport.ExportService"
    return import_module(f"{name}_pb2"), import_module(f"{name}_pb2_grpc")


def completed_state(messages: Any, size: int) -> Any:
    """The GetSessionStateResponse that every server gives."""
    response = messages.GetSessionStateResponse()
    state = response.session_state
    state.state = messages.S_COMPLETED
    state.last_frame_timestamp = LAST
    state.result.succeeded = True
    state.result.files.add(path=FILE, size=size, min_timestamp=FIRST, max_timestamp=LAST, mime_type=MIME)
    return response


def wire_size(size: int, chunk_size: int, first: int) -> int:
    """Bytes of DATA, gRPC's framing included, of a download of the chunks from `first` on of a file of `size` bytes."""
    total = 0
    for index in range(first, -(-size // chunk_size)):
        length = min(chunk_size, size - index * chunk_size)
        total += 5 + (1 + _varint_size(index) if index else 0) + 1 + _varint_size(length) + length
    return total


def _varint_size(value: int) -> int:
    return max(1, -(-value.bit_length() // 7))


def framed(message: bytes) -> bytes:
    """A gRPC message as it stands in a request's body."""
    return b"\0" + len(message).to_bytes(4, "big") + message
