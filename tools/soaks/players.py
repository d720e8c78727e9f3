"""Clips that are served from the recordings, in the players that people have.

    python -m tools.soaks.players [PART OF A NAME]

Each clip is exported by a real server and downloaded by a stock client; then every player has to decode each of its
pictures, whose numbers tell whether it is the right one, and its sound. Chromium plays it and is sent to five places.
The cases are what players are known to stumble over: an exact start that is encoded, its parameter sets, B-frames,
a gap. Debian's Chromium has no decoder for H.265.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.client import CAMERA, SECOND_CAMERA, Client
from tests.e2e.test_export import configuration
from tests.material import SECOND, T0, judge, numbered
from tests.server_process import started_servers
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, Piece, cut
from tools.soaks.playing import PLAYERS, Clip, NoDecoderError, PlayError, sound_s, texts
from vx.timestamps import format_timestamp

_RATE = 25
_B_FRAMES = Form(b_frames=2, audio=True)
_H265 = Form(
    codec="libx265",
    audio=True,
    options=(("preset", "ultrafast"), ("x265-params", "log-level=none:open-gop=0:keyint=25:min-keyint=25:bframes=2")),
)
_MIME = {"libx264": "avc1.640028", "libx265": "hvc1.1.6.L93.B0"}


@dataclass(frozen=True)
class Case:
    """Recordings, and the clip that is made of them."""

    form: Form
    kind: str
    recorded: Sequence[tuple[int, int]]
    """Begin and end of each recording, in seconds."""
    begin_s: float
    end_s: float
    cameras: int = 1
    subtitles: bool = True
    max_file_size: int = 0

    @property
    def expected(self) -> list[int]:
        """The numbers of the pictures that the clip has to show."""
        wanted = range(math.ceil(self.begin_s * _RATE - 1e-6), math.ceil(self.end_s * _RATE - 1e-6))
        return [n for n in wanted if any(begin * _RATE <= n < end * _RATE for begin, end in self.recorded)]


def _parts(begin: int, end: int, length: int = 2) -> list[tuple[int, int]]:
    return [(at, at + length) for at in range(begin, end, length)]


_WITH_A_GAP = [*_parts(0, 4), *_parts(14, 18)]
CASES = {
    "whole recordings": Case(Form(audio=True), "mp4", _parts(0, 8), 0, 8, subtitles=False),
    "exact, flat, B-frames": Case(_B_FRAMES, "mp4", _parts(0, 12), 0.52, 10.64),
    "exact, fragments, B-frames": Case(_B_FRAMES, "fmp4", _parts(0, 12), 0.52, 10.64),
    "fragments of a second": Case(Form(audio=True), "fmp4", _parts(0, 12, 1), 1.2, 11.48),
    "a gap of 10 s": Case(_B_FRAMES, "mp4", _WITH_A_GAP, 0.52, 17.2),
    "two cameras": Case(_B_FRAMES, "mp4", _parts(0, 8), 0.52, 7.2, cameras=2),
    "limited size": Case(_B_FRAMES, "mp4", _parts(0, 12), 0.52, 11.2, max_file_size=90_000),
    "1080p": Case(Form(width=1920, height=1080, b_frames=2, audio=True), "fmp4", _parts(0, 4), 0.52, 3.8),
    "H.265": Case(_H265, "mp4", _parts(0, 8), 0.52, 7.2),
}


def main() -> None:
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{'':28}" + "".join(f"{player:16}" for player in PLAYERS), flush=True)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="vx-soak-") as name:
        Path(name).chmod(0o755)  # VLC reads clips there, as another user
        stubs = Stubs(Path(name))
        for number, (what, case) in enumerate(CASES.items()):
            if part not in what:
                continue
            folder = Path(name, str(number))
            with started_servers(folder / "server") as start:
                server = start(_record(case, folder))
                clips = _export(case, folder, server.state_dir, Client(stubs, server.address))
            for clip in clips:
                row = _play(clip, what, faults)
                print(f"{what:28}" + "".join(f"{cell:16}" for cell in row), flush=True)
    for fault in faults:
        print(f"FAULT: {fault}")
    print("the soak has failed" if faults else "all is well")
    raise SystemExit(bool(faults))


def _play(clip: Clip, what: str, faults: list[str]) -> Iterator[str]:
    """What each player says, in the table's words; `faults` gets what is wrong."""
    for name, player in PLAYERS.items():
        try:
            yield player(clip)
        except NoDecoderError:
            yield "no decoder"
        except PlayError as error:
            yield "FAULT"
            faults.append(f"{what}, {name}: {error}")


def _record(case: Case, folder: Path) -> str:
    """Make the recordings of both cameras, and the configuration of a server of them."""
    pieces = [Piece(begin * SECOND, end * SECOND) for begin, end in case.recorded]
    footage = numbered(case.form, pieces[-1].end_us // SECOND * _RATE)
    an_hour_ago = time.time() - 3600
    for name in ("mtx", "yard"):
        for path in cut(footage, str(folder / name / MEDIAMTX), T0, pieces, kind=case.kind):
            os.utime(path, (an_hour_ago, an_hour_ago))
    return configuration(folder)


def _export(case: Case, folder: Path, state_dir: Path, client: Client) -> list[Clip]:
    """Export the case's clip, and download its files. SystemExit where it isn't what it is about."""
    begin, end = (format_timestamp(T0 + round(at_s * SECOND)) for at_s in (case.begin_s, case.end_s))
    archive = client.archive(begin, end, cameras=[CAMERA, SECOND_CAMERA][: case.cameras])
    stream = client.export.StreamType(format=client.export.StreamType.MP4)
    options = client.export.Options(archive=archive, stream=stream, max_file_size=case.max_file_size)
    if not case.subtitles:
        method = client.export.SubtitleInfo.SM_NONE
        cast = client.export.SubtitleInfo(common_info_mode=method, stream_data_mode=method)
        options.settings.add(subtitle_cast=cast)
    session = client.start(options)
    state = client.wait_completed(session)
    if not state.result.succeeded:
        raise SystemExit(f"an export failed: {state}")
    clips = []
    expected = case.expected
    for file in state.result.files:
        if not (state_dir / "sessions" / session / file.path).is_dir():
            raise SystemExit(f"{file.path} was copied, but should be served from the recordings")
        path = folder / file.path
        path.write_bytes(client.download(session, file.path))
        judged = judge(path)
        times = judged.tracks[0]
        kinds = [stream["codec_type"] for stream in judged.streams]
        clips.append(
            Clip(
                path=path,
                codec=_MIME[case.form.codec],
                size=(case.form.width, case.form.height),
                expected=[expected[: len(times)]] * case.cameras,
                times=times,
                sound_s=sound_s(path) if "audio" in kinds else 0,
                texts=texts(path) if "subtitle" in kinds else [],
            )
        )
        expected = expected[len(times) :]
    if expected:
        raise SystemExit(f"the pictures from {expected[0]} on are in no file")
    return clips


if __name__ == "__main__":
    main()
