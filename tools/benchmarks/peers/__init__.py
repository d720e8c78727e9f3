"""The servers that are measured. Each is a program that serves `scenario` and prints one line of JSON when it can."""

from __future__ import annotations

import argparse
import json
import ssl
from pathlib import Path

from tools.benchmarks import scenario


def parser() -> argparse.ArgumentParser:
    """What every server takes."""
    options = argparse.ArgumentParser()
    options.add_argument("--file", type=Path, required=True, help="the session's one result file")
    options.add_argument("--stubs", type=Path, required=True, help="where grpcio's generated code is")
    options.add_argument("--certificate", type=Path, help="serve with TLS")
    options.add_argument("--key", type=Path)
    return options


def announce(port: int, session: str = scenario.PEER_SESSION) -> None:
    """Tell the benchmark that connections are accepted."""
    print(json.dumps({"port": port, "session": session}), flush=True)


def server_context(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """TLS as gRPC wants it, if it was asked for."""
    if arguments.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    context.set_alpn_protocols(["h2"])
    return context
