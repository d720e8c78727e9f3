"""What all client commands have: options that name the server and who one is there, and how a command ends."""

from __future__ import annotations

import asyncio
import functools
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vx import timestamps
from vx.cli.access import Access

if TYPE_CHECKING:
    from vx.cli.client import Client
    from vx.cli.report import Report
    from vx.config.addresses import Address

DEFAULT_SERVER = "127.0.0.1:20109"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Surroundings:
    """What the commands take from the world; tests give their own as click's `obj`."""

    now_us: Callable[[], int] = timestamps.now_us
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


def _server(context: click.Context, option: click.Parameter, value: str) -> Address:
    from vx.config.addresses import DEFAULT_PORT, Address

    for text in (value, f"{value}:{DEFAULT_PORT}"):
        try:
            address = Address.parse(text)
        except ValueError:
            continue
        if address.port or address.unix_path:
            return address
    text = f"{value!r} is no server; allowed is HOST:PORT, [IPV6]:PORT or unix:///PATH"
    raise click.BadParameter(text, context, option)


@dataclass(frozen=True)
class Call:
    """One run of a client command."""

    server: Address
    as_json: bool
    surroundings: Surroundings
    access: Access

    @property
    def server_option(self) -> str:
        """For commands that are suggested."""
        given = [("--server", "" if str(self.server) == DEFAULT_SERVER else str(self.server)), *self.access.options()]
        return "".join(f" {name} {shlex.quote(value)}" for name, value in given if value)

    def run(self, work: Callable[[Client, Report], Awaitable[_T]]) -> _T:
        """Do it, by a client of the server. An expected failure, or an interrupt, ends the process with its status."""
        from vx.cli.client import ClientError, open_client
        from vx.cli.report import Report, print_json

        terminal = sys.stderr.isatty()
        report = Report(quiet=self.as_json, terminal=terminal)
        context = click.get_current_context()
        password = self.access.password() if self.access.user else ""  # an interrupt is heard here, but not below

        async def connected() -> _T:
            async with open_client(self.server, self.access, password, self.surroundings.pause, report.warn) as client:
                return await work(client, report)

        try:
            return _run_interruptible(connected)
        except ClientError as error:
            if error.code == "UNAUTHENTICATED" and not self.access.user:
                report.say("the server has users; --user NAME logs in")
            report.warn(str(error))
            if self.as_json:
                told = {"message": str(error), "code": error.code, "exit_status": int(error.status)}
                print_json({**error.document, "error": told})
            context.exit(int(error.status))
        except _Interrupted as error:
            if self.as_json:
                told = {"message": "interrupted", "code": "", "exit_status": error.status}
                print_json({"error": told})
            context.exit(error.status)


class _Interrupted(Exception):  # noqa: N818  # not an error: somebody wanted it
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _run_interruptible(work: Callable[[], Awaitable[_T]]) -> _T:
    """asyncio.run, with SIGINT and SIGTERM cancelling `work`: the first one, and each one while it cleans up."""
    received: list[int] = []

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def interrupt(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt, number)
        try:
            return await work()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise _Interrupted(128 + received[0]) from None


@contextmanager
def told_as_usage(option: str) -> Iterator[None]:
    """A ValueError of the block is a mistake in this option."""
    try:
        yield
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


_File = click.Path(path_type=Path, exists=True, dir_okay=False)


def client_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all client commands have; the function gets them as its first argument, a `Call`."""

    @click.option(
        "--server",
        callback=_server,
        default=DEFAULT_SERVER,
        show_default=True,
        envvar="VX_SERVER",
        show_envvar=True,
        metavar="ADDRESS",
        help="HOST:PORT, or unix:///PATH.",
    )
    @click.option(
        "--ca",
        type=_File,
        envvar="VX_CA",
        show_envvar=True,
        metavar="FILE",
        help="Certificate of the authority that the server's is of; encrypts.",
    )
    @click.option("--tls", is_flag=True, help="Encrypt; the server's certificate is of a public authority.")
    @click.option(
        "--user", default="", envvar="VX_USER", show_envvar=True, metavar="NAME", help="Log in; asks for the password."
    )
    @click.option(
        "--password-file",
        type=_File,
        envvar="VX_PASSWORD_FILE",
        show_envvar=True,
        metavar="FILE",
        help="Its first line is the password; so is the variable VX_PASSWORD.",
    )
    @click.option(
        "--certificate", type=_File, metavar="FILE", help="One's own, with its key, where the server asks for one."
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, failures too; no progress.")
    @click.pass_context
    @functools.wraps(function)
    def command(
        context: click.Context,
        /,
        server: Address,
        as_json: bool,
        ca: Path | None,
        tls: bool,
        user: str,
        password_file: Path | None,
        certificate: Path | None,
        **options: Any,
    ) -> None:
        access = Access(tls=tls, ca=ca, certificate=certificate, user=user, password_file=password_file)
        function(Call(server, as_json, context.obj, access), **options)

    return command
