"""The configuration that `vx init` writes, and what it says of it."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vx.access.hashing import hash_password
from vx.cli import pki
from vx.config.addresses import DEFAULT_PORT
from vx.config.reading import parse

CONFIG = "vx.toml"
_PASSWORD_BYTES = 15

_TEMPLATE = """# Made by vx init. docs/configuration.md says what else there is.
listen = ["0.0.0.0:{port}"]
state_dir = {state_dir}

[tls]
certificate = {certificate}
key = {key}

[[role]]
name = "administrator"
cameras = ["*"]
live = true
archive = true
supervisor = true

[[user]]
name = {user}
password_hash = "{password_hash}"
roles = ["administrator"]

# A camera, and where its recordings lie:
#
# [[camera]]
# access_point = "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0"
# display_id = "1"
# display_name = "Entrance"
#
#   [[camera.archive]]
#   storage = "hosts/Server1/MultimediaStorage.AliceBlue/MultimediaStorage"
#   path = "/recordings/entrance/%Y-%m-%d_%H-%M-%S-%f.mp4"
"""


@dataclass(frozen=True)
class FirstConfig:
    """A configuration that has just been written."""

    folder: Path
    names: tuple[str, ...]
    user: str
    password: str = field(repr=False)

    @classmethod
    def make(cls, folder: Path, names: Sequence[str], user: str) -> FirstConfig:
        """Write it, and all that it needs. FileExistsError where something of it is there; ValueError; OSError."""
        folder = folder.absolute()
        names = tuple(names) or (socket.gethostname(),)
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        text = _TEMPLATE.format(
            port=DEFAULT_PORT,
            state_dir=json.dumps(str(folder / "state")),
            certificate=json.dumps(str(folder / pki.CERTIFICATE)),
            key=json.dumps(str(folder / pki.KEY)),
            user=json.dumps(user),
            password_hash=hash_password(password),
        )
        parse(text)  # a name that no user can have
        files = [*pki.make(names), pki.NewFile(CONFIG, text.encode(), 0o600)]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pki.write_new(folder, files)
        return cls(folder, names, user, password)

    def told(self) -> str:
        """What to know, and to do next. The password is nowhere else."""
        address = f"[{self.names[0]}]" if ":" in self.names[0] else self.names[0]
        authority = self.folder / pki.AUTHORITY
        return f"""{self.folder / CONFIG} is written.

User {self.user}, password (shown only now):

    {self.password}

Next:
  1. add your cameras to {CONFIG}
  2. vx serve --config {self.folder / CONFIG}
  3. give clients {authority}; for one that is here:
     vx cameras --server {address} --ca {authority} --user {self.user}
  4. move {self.folder / pki.AUTHORITY_KEY} to a safe place: who has it can pass for this server.
     `vx init {self.folder} --renew` needs it, before {pki.CERTIFICATE} expires in two years"""
