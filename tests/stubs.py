"""What a stranger's client has: Python stubs that grpc_tools generates from `proto/`, for grpcio."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from grpc_tools import protoc  # type: ignore[import-untyped]

PROTO = Path(__file__).resolve().parent.parent / "proto"


class Stubs:
    """The generated modules of the export interface. Typed as Any: they exist only while the tests run."""

    def __init__(self, folder: Path) -> None:
        include = Path(protoc.__file__).parent / "_proto"
        files = [str(path.relative_to(PROTO)) for path in sorted(PROTO.rglob("*.proto"))]
        options = [f"-I{PROTO}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        if protoc.main(["protoc", *options, *files]):
            raise RuntimeError("protoc cannot compile proto/")
        sys.path.insert(0, str(folder))
        package = "axxonsoft.bl.mmexport"
        self.export: Any = importlib.import_module(f"{package}.Export_pb2")
        self.service: Any = importlib.import_module(f"{package}.ExportService_pb2")
        self.grpc: Any = importlib.import_module(f"{package}.ExportService_pb2_grpc")
        self.reports: Any = _import_beside_ours("vx.v1.ExportReport_pb2", folder)
        self.reports_grpc: Any = _import_beside_ours("vx.v1.ExportReport_pb2_grpc", folder)
        self.auth: Any = importlib.import_module("axxonsoft.bl.auth.Authentication_pb2")
        self.auth_grpc: Any = importlib.import_module("axxonsoft.bl.auth.Authentication_pb2_grpc")
        self.domain: Any = importlib.import_module("axxonsoft.bl.domain.Domain_pb2")
        self.domain_grpc: Any = importlib.import_module("axxonsoft.bl.domain.Domain_pb2_grpc")
        self.archive: Any = importlib.import_module("axxonsoft.bl.archive.ArchiveSupport_pb2")
        self.archive_grpc: Any = importlib.import_module("axxonsoft.bl.archive.ArchiveSupport_pb2_grpc")


def _import_beside_ours(name: str, folder: Path) -> Any:
    """Import a module of the package `vx.v1`: the tests have vx itself in its place."""
    import vx

    vx.__path__ = [*vx.__path__, str(folder / "vx")] if str(folder / "vx") not in vx.__path__ else vx.__path__
    return importlib.import_module(name)
