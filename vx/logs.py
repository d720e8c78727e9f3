"""The server's log on stderr: lines of text, or of JSON for machines. What concerns a session has its id."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from typing import Any

import msgspec

_MOMENT = "%Y-%m-%dT%H:%M:%S"


class _SessionLog(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, log: logging.Logger, session_id: str) -> None:
        super().__init__(log)
        self._session_id = session_id

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "session": self._session_id}
        return f"session {self._session_id}: {msg}", kwargs


def about(log: logging.Logger, session_id: str) -> logging.LoggerAdapter[logging.Logger]:
    """`log`, for lines about a session: each begins with its id, and has it as the field `session`."""
    return _SessionLog(log, session_id)


def set_up(level: str, form: str) -> None:
    """Write to stderr from now on, as `text` or `json`. Times are those of everything else here: UTC."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", _MOMENT)
        self.converter = time.gmtime


class _Json(logging.Formatter):
    """One object a line: time, level, logger, message; session and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": f"{time.strftime(_MOMENT, time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        session = getattr(record, "session", None)
        if session is not None:
            line["session"] = session
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
