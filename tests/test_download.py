from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import vx.download
from vx.download import BUFFER, FileSource, Run, _Buffer, begun, chunks, open_file
from vx.errors import Kind, VxError


class ScatteredSource:
    """Bytes that lie in several places of a file."""

    def __init__(self, fd: int, runs: list[tuple[int, int]]) -> None:
        self.size = sum(length for _, length in runs)
        self._fd = fd
        self._runs = runs

    async def runs(self, offset: int, length: int) -> list[Run]:
        return list(self._find(offset, length))

    def verify(self) -> None:
        pass

    def _find(self, offset: int, length: int) -> Iterator[Run]:
        for start, size in self._runs:
            skip = min(offset, size)
            offset -= skip
            take = min(size - skip, length)
            if take:
                yield Run(self._fd, start + skip, take)
            length -= take


def header(index: int, length: int) -> bytes:
    return b"<%d:%d>" % (index, length)


async def collect(source: FileSource | ScatteredSource, chunk: int, first: int = 0) -> bytes:
    """What would be sent: copied at once, since the buffers are filled again."""
    return b"".join([b"".join(views) async for views in chunks(source, chunk, first, header)])


def expected(data: bytes, chunk: int, first: int) -> bytes:
    parts = [(index, data[index * chunk : (index + 1) * chunk]) for index in range(first, -(-len(data) // chunk))]
    return b"".join(header(index, len(part)) + part for index, part in parts)


@settings(deadline=None)
@given(size=st.integers(1, 5000), chunk=st.integers(1, 6000), first=st.integers(0, 40), buffer=st.integers(1, 700))
def test_chunks_are_the_files_bytes_from_the_index_on(size: int, chunk: int, first: int, buffer: int) -> None:
    data = bytes(n % 251 for n in range(size))
    fd = os.memfd_create("material")
    try:
        os.write(fd, data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vx.download, "BUFFER", buffer)
            if first * chunk >= size:
                with pytest.raises(VxError, match=r"start_from_chunk_index: chunk .* begins at byte") as caught:
                    trio.run(collect, FileSource(fd, size), chunk, first)
                assert caught.value.kind is Kind.OUT_OF_RANGE
            else:
                assert trio.run(collect, FileSource(fd, size), chunk, first) == expected(data, chunk, first)
    finally:
        os.close(fd)


async def test_runs_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(bytes(range(200)) * 10)
    fd = os.open(path, os.O_RDONLY)
    source = ScatteredSource(fd, [(1000, 300), (0, 7), (500, 400)])
    data = path.read_bytes()
    whole = data[1000:1300] + data[:7] + data[500:900]
    assert await collect(source, 100) == expected(whole, 100, 0)
    os.close(fd)


async def test_memory_is_one_buffer_however_large_file_and_chunk_are(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * BUFFER)
    with open_file(path, 20 * BUFFER) as source:
        seen = set()
        async for views in chunks(source, 4095 * 1024, 0, header):
            for view in views:
                if isinstance(view, memoryview):
                    assert isinstance(view.obj, bytearray)
                    assert len(view.obj) == BUFFER
                    seen.add(id(view.obj))
        assert len(seen) == 1


async def test_a_download_that_is_alone_takes_two_buffers_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(5 * BUFFER + 1))
    with open_file(path, 5 * BUFFER + 1) as source, begun():
        sizes, data = [], b""
        async for views in chunks(source, BUFFER, 0, lambda _index, _length: b""):
            sizes.append(sum(map(len, views)))
            data += b"".join(views)
            if len(sizes) == 2:
                other = begun()
                other.__enter__()
        other.__exit__(None, None, None)
    assert sizes == [BUFFER, 2 * BUFFER, BUFFER, BUFFER, 1]
    assert data == path.read_bytes()


async def test_many_downloads_share_their_memory(tmp_path: Path) -> None:
    """A few have whole buffers; of many that nobody reads, all together take little, and there is a last one."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * BUFFER)
    held: list[list[bytes | memoryview]] = []

    def sizes() -> list[int]:
        return [len(view.obj) for _, view, *_ in held if isinstance(view, memoryview) and isinstance(view.obj, _Buffer)]

    async with AsyncExitStack() as stack:
        source = stack.enter_context(open_file(path, 20 * BUFFER))
        downloads = stack.enter_context(ExitStack())
        generators = []
        for _ in range(200):
            downloads.enter_context(begun())
            pieces = await stack.enter_async_context(aclosing(chunks(source, 4095 * 1024, 0, header)))
            generators.append(pieces)
            held.append(await anext(pieces))
        with pytest.raises(VxError, match="200 downloads are under way already") as caught, begun():
            pass
        assert caught.value.kind is Kind.EXHAUSTED
        assert sizes()[:8] == [BUFFER] * 8
        assert len(sizes()) == 200
        assert sum(sizes()) < 14 << 20
        downloads.close()
        for pieces in generators[1:]:
            await pieces.aclose()  # as when they are cancelled
        with begun():
            assert _Buffer.next_size() < BUFFER, "what a connection still has to send counts"
            del held[1:]
            held[0] = await anext(generators[0])
            assert _Buffer.next_size() == BUFFER


async def test_downloads_that_take_turns_need_one_buffer(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(20 * BUFFER)
    turn = trio.Lock()
    seen: set[int] = set()

    async def download(source: FileSource) -> None:
        async for views in chunks(source, 4095 * 1024, 0, header, ready=turn.acquire):
            seen.update(id(view.obj) for view in views if isinstance(view, memoryview))
            await trio.lowlevel.checkpoint()
            turn.release()

    with begun(), open_file(path, 20 * BUFFER) as source:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(download, source)
        assert len(seen) <= 2, "the one that is sent, and one that is filled meanwhile"
        assert len(_Buffer.spare) == len(seen)
    assert not _Buffer.spare, "nothing is kept for nobody"


async def test_a_file_of_another_size_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"12345")
    with pytest.raises(VxError, match="the file has 5 bytes; it was made with 6") as caught, open_file(path, 6):
        pass
    assert caught.value.kind is Kind.DATA_LOSS
    path.unlink()
    with pytest.raises(VxError, match="the file cannot be read any more: No such file") as caught, open_file(path, 5):
        pass
    assert caught.value.kind is Kind.DATA_LOSS


async def test_a_file_cut_short_meanwhile_ends_the_download(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(3 * BUFFER))
    with open_file(path, 3 * BUFFER) as source:
        pieces = chunks(source, BUFFER, 0, header)
        await anext(pieces)
        os.truncate(path, BUFFER + 10)
        with pytest.raises(VxError, match="has become shorter") as caught:
            await anext(pieces)
    assert caught.value.kind is Kind.DATA_LOSS


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(VxError, match="cannot be read"), open_file(tmp_path / "clip.mp4", 6):
        pass


async def test_a_cold_page_cache_is_read_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`RWF_NOWAIT` says that the disk would have to be asked; the event loop must then not be the one that waits."""
    path = tmp_path / "cold"
    path.write_bytes(bytes(range(256)) * 1024)
    loop = threading.get_ident()
    asked: list[bool] = []
    preadv = os.preadv

    def cold(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError
        asked.append(threading.get_ident() == loop)
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", cold)
    with open_file(path, path.stat().st_size) as source:
        assert await collect(source, 65536) == expected(path.read_bytes(), 65536, 0)
    assert asked == [False]
