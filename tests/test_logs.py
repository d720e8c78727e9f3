from __future__ import annotations

import json
import logging

import pytest

from vx.logs import _Json, _Text, about

LOG = logging.getLogger("vx.test")


def test_a_line_of_text_begins_with_the_session(caplog: pytest.LogCaptureFixture) -> None:
    about(LOG, "abc").warning("it has %d files", 2)
    (record,) = caplog.records
    record.created, record.msecs = 1_778_486_400.25, 250.0
    assert _Text().format(record) == "2026-05-11T08:00:00.250Z WARNING vx.test: session abc: it has 2 files"
    assert json.loads(_Json().format(record)) == {
        "time": "2026-05-11T08:00:00.250Z",
        "level": "warning",
        "logger": "vx.test",
        "message": "session abc: it has 2 files",
        "session": "abc",
    }


def test_a_line_of_json_holds_whatever_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    try:
        int('quote " and\nline')
    except ValueError:
        LOG.exception("größer")
    line = _Json().format(caplog.records[0])
    assert "\n" not in line
    told = json.loads(line)
    assert (told["message"], told["level"]) == ("größer", "error")
    assert "ValueError: invalid literal" in told["exception"]
    assert "session" not in told
