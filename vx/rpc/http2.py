"""h2's state of one connection, made fit for a server that is to stand what a peer may do to it."""

from __future__ import annotations

from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamInputs
from hpack.exceptions import HPACKError
from hyperframe.exceptions import InvalidPaddingError
from hyperframe.frame import Frame, GoAwayFrame, SettingsFrame

from vx.rpc.frames import MAX_HEADER_LIST, FrameReader, data_header, headers_frame

MAX_STREAM_ID = 2**31 - 1
MAX_REASON = 200
"""Bytes of explanation in a GOAWAY: some of h2's quote the input."""
HEADER_TABLE = 4096
"""Bytes of header fields that our HPACK encoder remembers, at most."""
_KNOWN_SETTINGS = frozenset(map(int, SettingCodes))
_MAX_SETTINGS, _SETTING_SIZE = 32, 6


class ServerH2(H2Connection):
    """h2's state of a server connection, taken frame by frame, without the places where it gives up a connection too
    early or trusts a peer too far."""

    # h2 remembers how each of the last 65,536 streams ended; that is megabytes for a client that polls for a day.
    MAX_CLOSED_STREAMS = 1024
    DEFAULT_MAX_HEADER_LIST_SIZE = MAX_HEADER_LIST

    incoming_buffer: FrameReader

    def __init__(self, max_streams: int) -> None:
        super().__init__(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",  # any byte decodes; what is not ASCII fails later, as metadata of one call
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.max_streams = max_streams
        self._announced = {
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
        }
        # h2 ends the connection when a peer opens a stream too many. It is told of no limit, so that the handler can
        # refuse the one stream; the peer is told the real one.
        limits = {**self._announced, SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAM_ID}
        self.local_settings = Settings(client=False, initial_values=limits)
        self.local_settings.acknowledge()
        self.incoming_buffer = FrameReader(server=True)
        self.incoming_buffer.max_frame_size = self.max_inbound_frame_size

    def begin(self) -> None:
        """Queue our SETTINGS.

        The windows for what clients send stay at HTTP/2's default of 64 KiB: requests are small, and it is what a
        peer can make us keep without a call that takes it.
        """
        self.initiate_connection()
        self.clear_outbound_data_buffer()  # what h2 would announce: its own limits, not ours
        self._prepare_for_sending(
            [SettingsFrame(0, settings={int(code): value for code, value in self._announced.items()})]
        )

    def queue_block(self, stream_id: int, block: bytes, *, end_stream: bool) -> None:
        """Queue a response's HEADERS whose block is encoded already, without HPACK's memory.

        Most header blocks of a server are the same each time, and encoding them takes longer than all else of a call.
        """
        machine = self.streams[stream_id].state_machine
        machine.process_input(StreamInputs.SEND_HEADERS)
        if end_stream:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        block = self.encoder.encode(()) + block  # a change of the table's size must come first (RFC 7541, 4.2)
        self._data_to_send += headers_frame(block, stream_id, end_stream=end_stream)

    def queue_data(self, stream: Any, data: bytes) -> None:
        """Queue a DATA frame; the windows and the peer's frame size have to allow it."""
        self.use_windows(stream, len(data))
        self._data_to_send += data_header(len(data), stream.stream_id) + data

    def use_windows(self, stream: Any, size: int) -> None:
        """Take what is sent as DATA on a stream from both of its windows."""
        self.outbound_flow_control_window -= size
        stream.outbound_flow_control_window -= size

    def next_frame(self) -> tuple[Frame, list[h2.events.Event]] | None:
        """The next frame in `incoming_buffer` and what it means; None until more bytes come. ProtocolError.

        h2's own `receive_data` is ahead of its events: a stream that one of them opens may be gone by then.
        """
        try:
            frame = next(self.incoming_buffer, None)
        except InvalidPaddingError as error:
            raise ProtocolError(str(error)) from error
        if frame is None:
            self.incoming_buffer.check_rest()
            return None
        return frame, self._receive_frame(frame)

    def go_away(self, last_stream_id: int, code: ErrorCodes, reason: str = "") -> None:
        """Queue a GOAWAY that leaves the streams that are open alone, unlike h2's `close_connection`."""
        text = reason.encode(errors="replace")[:MAX_REASON]
        self._prepare_for_sending([GoAwayFrame(0, last_stream_id, code, text)])

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        # The peer will open no more streams; those that are open go on (RFC 9113, 6.8). h2 would close all.
        self.state_machine.process_input(ConnectionInputs.RECV_PING)  # legal in every open state, changes none
        return [], []

    def _receive_settings_frame(self, frame: SettingsFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        # h2 would keep every setting of the 65,536 that a peer can make up, and walk through all of them each time;
        # and let the peer choose how much our HPACK encoder remembers, although it need not use what it may.
        if frame.body_len > _MAX_SETTINGS * _SETTING_SIZE:
            raise DenialOfServiceError(f"too many settings; at most {_MAX_SETTINGS} in a frame are allowed")
        frame.settings = {code: value for code, value in frame.settings.items() if code in _KNOWN_SETTINGS}
        table_size = frame.settings.get(SettingCodes.HEADER_TABLE_SIZE, 0)
        frame.settings.update({SettingCodes.HEADER_TABLE_SIZE: HEADER_TABLE} if table_size > HEADER_TABLE else {})
        answer = super()._receive_settings_frame(frame)
        changes = self.encoder.table_size_changes
        if len(changes) > 2:  # what is said of them: the smallest, and the last one (RFC 7541, 4.2)
            changes[:] = [min(changes), changes[-1]]
        return answer


def code_of(error: ProtocolError) -> ErrorCodes:
    """What a GOAWAY says of `error`."""
    if isinstance(error.__cause__, HPACKError) and not isinstance(error, DenialOfServiceError):
        return ErrorCodes.COMPRESSION_ERROR
    return ErrorCodes(error.error_code)
