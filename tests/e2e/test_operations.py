"""What an operator has of a server: the log as JSON, metrics, and what systemd is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import CAMERA, SECOND_CAMERA, Client
from tests.e2e.test_export import archive, at, configuration, seconds
from tests.material import T0, numbered
from tests.server_process import ServerProcess
from tests.stubs import Stubs
from tools.make_recordings import MEDIAMTX, Form, cut

__all__ = ["archive"]  # a fixture


def test_logs_metrics_and_systemd(
    archive: Path,
    stubs: Stubs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_server: Callable[[str], ServerProcess],
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
        more = '[log]\nformat = "json"\n[metrics]\nlisten = "127.0.0.1:0"'
        server = start_server(configuration(archive, more))
        assert {systemd.recv(100), systemd.recv(100)} == {b"READY=1", b"WATCHDOG=1"}

        client = Client(stubs, server.address)
        session_id = client.start(client.clip(at(0), at(4)))
        (file,) = client.wait_completed(session_id).result.files
        client.download(session_id, file.path)
        server.wait_log("completed with 1 file(s)")
        lines = [json.loads(line) for line in server.log.splitlines()]
        told = next(line for line in lines if "completed with" in line["message"])
        assert (told["session"], told["level"], told["logger"]) == (session_id, "info", "vx.session.registry")

        listening = next(line["message"] for line in lines if "/metrics" in line["message"])
        with urllib.request.urlopen(f"http://{listening.rpartition(' ')[2]}/metrics") as answer:
            values = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
        assert values['vx_sessions{state="completed"}'] == "1"
        assert values['vx_exports_total{outcome="succeeded"}'] == "1"
        assert float(values["vx_exported_seconds_total"]) == pytest.approx(3.96, abs=0.1)
        assert int(values["vx_exported_bytes_total"]) == file.size
        assert int(values["vx_sent_bytes_total"]) >= file.size
        assert float(values["vx_results_free_bytes"]) > 1 << 20
        client.channel.close()
        assert server.terminate() == 0
        assert systemd.recv(100) == b"STOPPING=1"


def test_a_configuration_that_is_slow_to_read_again_does_not_hold_up_the_end(
    start_server: Callable[[str], ServerProcess],
) -> None:
    server = start_server("")
    config = server.state_dir.parent / "vx.toml"
    config.unlink()
    os.mkfifo(config)
    server.process.send_signal(signal.SIGHUP)
    with config.open("w"):  # the server has opened it too, and waits for what is written
        assert server.terminate() == 0


def test_an_encoder_that_gets_no_memory(
    stubs: Stubs, tmp_path: Path, start_server: Callable[[str], ServerProcess]
) -> None:
    for folder, form in (("mtx", Form()), ("yard", Form(width=3840, height=2160))):
        cut(numbered(form, 10), f"{tmp_path}/{folder}/{MEDIAMTX}", T0, seconds(0, 0.4))
    server = start_server(configuration(tmp_path, "[worker]\nmemory_mb = 304"))
    client = Client(stubs, server.address)

    def encoded(camera: str) -> Any:
        stream = client.export.StreamType(settings=[client.export.StreamSetting(video_quality=client.export.C_MEDIUM)])
        return client.export.Options(archive=client.archive(at(0), at(1), cameras=[camera]), stream=stream)

    state = client.wait_completed(client.start(encoded(SECOND_CAMERA)))
    assert (state.result.succeeded, list(state.result.files)) == (False, [])
    server.wait_log("Traceback")  # of what the encoder said, which may not have been for want of memory
    server.wait_log("of 304 MiB of memory were in use, it may need more: worker.memory_mb")
    assert client.wait_completed(client.start(encoded(CAMERA))).result.succeeded
    client.channel.close()
