"""What the one does who runs a server: `vx init`, `vx passwd`, `vx audit`. No server is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vx.cli import values
from vx.cli.calling import Surroundings, told_as_usage
from vx.daemon import told_and_ended

_MIN_PASSWORD = 8


@click.command(
    epilog="""
\b
Example:
  vx passwd >> /etc/vx/vx.toml
"""
)
def passwd() -> None:
    """Make the password_hash of a user.

    Asks for the password twice; where there is no terminal, it is the first line of the input. The line for the user's
    [[user]] goes to stdout.
    """
    from vx.access.hashing import MAX_PASSWORD, hash_password

    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not _MIN_PASSWORD <= len(password) <= len(password.encode()) <= MAX_PASSWORD:
        raise click.UsageError(f"a password has {_MIN_PASSWORD} to {MAX_PASSWORD} characters")
    click.echo(f'password_hash = "{hash_password(password)}"')


@click.command(
    epilog="""
\b
Examples:
  vx audit --config /etc/vx/vx.toml --since -1d
  vx audit --config /etc/vx/vx.toml --user alice --json
"""
)
@click.option("--config", "config_file", required=True, metavar="FILE", help="The server's configuration.")
@click.option("--since", metavar="TIME", help="2026-05-11T08:04:11 (UTC), or so long ago: -10m, -1d; by default all.")
@click.option("--user", default="", metavar="NAME", help="Only what this user did, or calls from this host.")
@click.option("--session", "session_id", default="", metavar="ID", help="Only what was done with this session.")
@click.option("--json", "as_json", is_flag=True, help="A JSON document for each line.")
@click.pass_obj
def audit(
    surroundings: Surroundings, config_file: str, since: str | None, user: str, session_id: str, as_json: bool
) -> None:
    """Show who logged in, failed, started, stopped, downloaded and removed what, from where."""
    import json

    from vx.config.reading import load
    from vx.session.audit import read_audit
    from vx.timestamps import format_timestamp

    with told_as_usage("--since"):
        since_us = values.parse_time(since, surroundings.now_us()) if since else 0
    with told_and_ended(config_file):
        for entry in read_audit(load(config_file).database, since_us, user, session_id):
            if as_json:
                document = {
                    "at": format_timestamp(entry.at_us),
                    "what": entry.what,
                    "user": entry.who.name,
                    "address": entry.who.address,
                    "session_id": entry.session_id,
                    "detail": entry.detail,
                }
                click.echo(json.dumps(document, ensure_ascii=False))
            else:
                words = (entry.who.name, entry.who.address or "-", entry.what, entry.session_id or "-", entry.detail)
                click.echo("  ".join((values.show_time(entry.at_us), *map(values.plain, words))).rstrip())


@click.command(
    epilog="""
\b
Examples:
  vx init /etc/vx --name cellar.example.org --name 192.0.2.7
  vx init /etc/vx --renew
"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="By which clients reach the server: a host's name or address. May be given several times; by default this "
    "machine's name. localhost works always.",
)
@click.option("--user", default="admin", show_default=True, metavar="NAME", help="The first user.")
@click.option("--renew", is_flag=True, help="Only make a new server certificate, with the names of the old one.")
def init(folder: Path, names: tuple[str, ...], user: str, renew: bool) -> None:
    """Make a first configuration in DIR.

    It has a certificate authority of its own, a server certificate, and a user with a generated password, which is
    shown once.
    """
    try:
        from vx.cli import pki
    except ModuleNotFoundError:
        raise click.UsageError("this needs cryptography: pip install '.[init]' in the folder of vx's source") from None
    from vx.cli.firstconfig import FirstConfig
    from vx.errors import VxError

    try:
        if renew:
            pki.renew(folder)
            click.echo(f"{folder / pki.CERTIFICATE} is new; SIGHUP has a running server read it")
            return
        made = FirstConfig.make(folder, names, user)
    except FileExistsError as error:
        click.echo(f"vx: {error.filename} is there already; nothing is changed", err=True)
        raise SystemExit(5) from None
    except VxError as error:
        raise click.BadParameter(str(error), param_hint="--user") from None
    except (OSError, ValueError) as error:
        click.echo(f"vx: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(made.told())
