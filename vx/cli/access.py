"""How a server is talked to, and as whom."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from vx.cli.values import password_in


@dataclass(frozen=True)
class Access:
    """The password is read when it is needed, and never a word of a command."""

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    """PEM with a certificate and its key."""
    user: str = ""
    password_file: Path | None = None

    @property
    def encrypts(self) -> bool:
        return self.tls or self.ca is not None or self.certificate is not None

    def options(self) -> list[tuple[str, str]]:
        """For commands that are suggested: names of options and their values."""
        paths = [("--ca", self.ca), ("--certificate", self.certificate), ("--password-file", self.password_file)]
        return [("--user", self.user), *((name, "" if path is None else str(path)) for name, path in paths)]

    def password(self) -> str:
        """From the file, the variable VX_PASSWORD, or the terminal. click.UsageError where there is none of them."""
        if self.password_file is not None:
            try:
                return password_in(self.password_file)
            except ValueError as error:
                raise click.UsageError(str(error)) from None
        if "VX_PASSWORD" in os.environ:
            return os.environ["VX_PASSWORD"]
        if not sys.stdin.isatty():
            raise click.UsageError("no password: --password-file or the variable VX_PASSWORD have it, or a terminal")
        return str(click.prompt(f"Password of {self.user}", hide_input=True, err=True))
