"""What is made from sources before anything is measured. It is kept in .cache/bench/ until its sources change."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
CACHE = ROOT / ".cache" / "bench"
PEERS = Path(__file__).resolve().parent / "peers"


class BuildError(Exception):
    """It could not be made; the text says what is missing or what the compiler said."""


def make_stubs() -> Path:
    """The folder with grpcio's generated code."""

    def make(folder: Path) -> None:
        options = [f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        _run([sys.executable, "-m", "grpc_tools.protoc", *options, *_proto_names()])

    return _kept("stubs", _protos(), make)


def make_cpp_server() -> Path:
    """The C++ peer's program."""
    source = PEERS / "cpp_server.cc"

    def make(folder: Path) -> None:
        plugin = shutil.which("grpc_cpp_plugin")
        for program, found in (("g++", shutil.which("g++")), ("protoc", shutil.which("protoc"))):
            if not found:
                raise BuildError(f"{program} is not installed")
        if not plugin:
            raise BuildError("grpc_cpp_plugin is not installed")
        options = [f"-I{PROTO}", f"--cpp_out={folder}", f"--grpc_out={folder}", f"--plugin=protoc-gen-grpc={plugin}"]
        _run(["protoc", *options, *_proto_names()])
        sources = [str(source), *map(str, sorted(folder.rglob("*.pb.cc")))]
        # gRPC's headers call abseil themselves; which of its many libraries, the linker finds out.
        libraries = ["-Wl,--copy-dt-needed-entries", "-lgrpc++", "-lgrpc", "-lgpr", "-lprotobuf", "-lpthread"]
        _run(["g++", "-std=c++17", "-O2", f"-I{folder}", *sources, "-o", str(folder / "server"), *libraries])

    return _kept("cpp", [*_protos(), source], make) / "server"


def make_slow_disk() -> Path:
    """The library that makes uncached reads slow in the server that preloads it."""
    source = PEERS / "slow_disk.c"

    def make(folder: Path) -> None:
        if not shutil.which("gcc"):
            raise BuildError("gcc is not installed")
        _run(["gcc", "-O2", "-shared", "-fPIC", str(source), "-o", str(folder / "slow_disk.so"), "-ldl"])

    return _kept("slow_disk", [source], make) / "slow_disk.so"


def _protos() -> list[Path]:
    return sorted(PROTO.rglob("*.proto"))


def _proto_names() -> list[str]:
    return [path.relative_to(PROTO).as_posix() for path in _protos()]


def _kept(name: str, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
    """A folder of that name that `make` has filled from `sources`, as they and this file are now."""
    digest = hashlib.sha256()
    for path in (*sources, Path(__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(sys.version.encode())
    folder, stamp = CACHE / name, CACHE / name / "stamp"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        print(f"Building {name} …", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        stamp.write_text(digest.hexdigest())
    return folder


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed:\n{done.stdout[-3000:]}")
