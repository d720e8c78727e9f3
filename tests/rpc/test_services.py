"""What is encoded by hand is what betterproto would have encoded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vx import model
from vx.rpc.generated.axxonsoft.bl.mmexport import (
    EState,
    FileChunk,
    ListSessionsResponse,
    ListSessionsResponseSessionInfo,
    Options,
    Result,
    ResultFile,
    Session,
    State,
)
from vx.rpc.services import _chunk_header, _encode_infos, _encode_page, _encode_state
from vx.timestamps import format_timestamp

times = st.integers(0, 4_000_000_000_000_000)
files = st.builds(
    model.ResultFile,
    id=st.text(),
    size=st.integers(0, 2**64 - 1),
    mime_type=st.text(),
    first_us=times,
    last_us=times,
    path=st.text(),
)
records = st.builds(
    model.Record,
    id=st.text(),
    number=st.integers(1, 2**40),
    options=st.builds(lambda size: bytes(Options(max_file_size=size)), st.integers(0, 2**64 - 1)),
    timezone_min=st.integers(-840, 840),
    started_us=times,
    state=st.sampled_from(model.State),
    last_frame_us=st.none() | times,
    files=st.lists(files, max_size=3).map(tuple),
    succeeded=st.booleans(),
    reason=st.text(),
)
CONTRACT = {
    model.State.QUEUED: EState.S_RUNNING,
    model.State.RUNNING: EState.S_RUNNING,
    model.State.STOPPING: EState.S_RUNNING,
    model.State.COMPLETED: EState.S_COMPLETED,
    model.State.REMOVED: EState.S_REMOVED,
    model.State.FORGOTTEN: EState.S_REMOVED,
}


def expected_state(record: model.Record) -> State:
    state = State(state=CONTRACT[record.state])
    if record.last_frame_us is not None:
        state.last_frame_timestamp = format_timestamp(record.last_frame_us)
    if not record.state.is_running:
        state.result = Result(
            files=[
                ResultFile(
                    path=file.path or file.id,
                    size=file.size,
                    min_timestamp=format_timestamp(file.first_us),
                    max_timestamp=format_timestamp(file.last_us),
                    mime_type=file.mime_type,
                    timezone=record.timezone_min,
                )
                for file in record.files
            ],
            succeeded=record.succeeded,
        )
    return state


@given(records)
def test_a_state(record: model.Record) -> None:
    assert State().parse(_encode_state(record)) == expected_state(record)
    assert _encode_state(record) == bytes(expected_state(record))


@given(st.lists(records, max_size=3), st.text())
def test_a_page(records: list[model.Record], token: str) -> None:
    infos = [
        ListSessionsResponseSessionInfo(
            session=Session(id=record.id, options=Options().parse(record.options)), state=expected_state(record)
        )
        for record in records
    ]
    page = ListSessionsResponse(sessions=infos, next_page_token=token)
    assert ListSessionsResponse().parse(_encode_page(_encode_infos(records), token).data) == page


def test_a_page_stays_below_what_clients_take() -> None:
    """Options may be large; there are then fewer sessions in a message, but always one."""
    sizes = [2 << 20, (1 << 20) - 1000, 10, 4 << 20, 10]
    records = [
        model.Record(
            id=str(number),
            number=number,
            options=bytes(size),
            timezone_min=0,
            started_us=0,
            state=model.State.COMPLETED,
        )
        for number, size in enumerate(sizes)
    ]
    pages = []
    while records:
        infos = _encode_infos(records)
        pages.append(len(infos))
        records = records[len(infos) :]
    assert pages == [3, 1, 1]


@given(st.integers(0, 2**63), st.binary(min_size=1, max_size=300))
def test_a_chunk(index: int, data: bytes) -> None:
    message = _chunk_header(index, len(data)) + data
    assert message[0] == 0
    assert int.from_bytes(message[1:5], "big") == len(message) - 5
    assert message[5:] == bytes(FileChunk(index=index, data=data))
