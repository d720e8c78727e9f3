"""Makes vx/rpc/generated/ from proto/; run it as tools/generate, which brings the Python that has the compilers.

protoc parses, betterproto's plugin writes. What stands between and behind them is here, because of three faults:

- The plugin shortens an enum value by all up to the enum's name, wherever in the value that stands: C_FINE_QUALITY of
  EQuality holds "E_QUALITY" and came out as `_`. We put the enum's name in front of each value, so that it is exactly
  this that the plugin takes off, and a value is called in Python what it is called in proto/.
- It keeps the blank after `//` in all lines of a comment but the first.
- To a type checker, a member of a betterproto.Enum is an int, which then is no value for a field of the enum's type. We
  tell the checker that the enums are IntEnum; that is what they emulate.

The formatter that the plugin uses (black) is pinned to a year's style in pyproject.toml, so that the result is the same
everywhere.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from betterproto.casing import snake_case
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GENERATED = ROOT / "vx" / "rpc" / "generated"


def parse(names: list[str]) -> CodeGeneratorRequest:
    """What protoc would tell a plugin about the files `names` below proto/."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "descriptors")
        options = [f"-I{PROTO}", f"--descriptor_set_out={output}", "--include_imports", "--include_source_info"]
        command = [sys.executable, "-m", "grpc_tools.protoc", *options, *names]
        if subprocess.run(command, check=False).returncode != 0:  # noqa: S603
            raise SystemExit("protoc can't read proto/: see above")
        files = FileDescriptorSet.FromString(output.read_bytes()).file
    return CodeGeneratorRequest(file_to_generate=names, proto_file=files)


def prefix_values(enums: Iterable[EnumDescriptorProto], outer: str) -> None:
    for enum in enums:
        # The plugin knows a nested enum by its flattened name.
        prefix = snake_case(f"{outer}_{enum.name}").upper()
        for value in enum.value:
            value.name = f"{prefix}_{value.name}"


def prefix_nested_values(messages: Iterable[DescriptorProto], outer: str) -> None:
    for message in messages:
        name = f"{outer}_{message.name}"
        prefix_values(message.enum_type, name)
        prefix_nested_values(message.nested_type, name)


def work_around_plugin(request: CodeGeneratorRequest) -> None:
    for file in request.proto_file:
        prefix_values(file.enum_type, "")
        prefix_nested_values(file.message_type, "")
        for location in file.source_code_info.location:
            lines = location.leading_comments.splitlines()
            location.leading_comments = "\n".join(line.removeprefix(" ") for line in lines)


ENUM_BASE = """
import typing as _typing

if _typing.TYPE_CHECKING:
    from enum import IntEnum as _Enum
else:
    from betterproto import Enum as _Enum"""


def type_enums(text: str) -> str:
    imports, mark, enums = text.partition("\n\n\nclass ")
    if "(betterproto.Enum):" not in text:
        return text
    return imports + "\n" + ENUM_BASE + mark + enums.replace("(betterproto.Enum):", "(_Enum):")


def generate() -> dict[str, str]:
    """The generated files' texts by their paths below vx/rpc/generated/."""
    request = parse(sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto")))
    work_around_plugin(request)
    # The plugin leaves out an __init__.py that it finds in the working directory: give it an empty one.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "betterproto.plugin"],
            input=request.SerializeToString(),
            capture_output=True,
            cwd=folder,
            check=False,
        )
    response = CodeGeneratorResponse.FromString(done.stdout) if done.returncode == 0 else None
    if response is None or response.error or b"[WARNING]" in done.stderr:
        error = response.error if response else f"status {done.returncode}"
        raise SystemExit(f"betterproto's plugin failed: {error}\n{done.stderr.decode()}")
    return {file.name: type_enums(file.content) for file in response.file}


def read_generated() -> dict[str, str]:
    return {path.relative_to(GENERATED).as_posix(): path.read_text("utf-8") for path in GENERATED.rglob("*.py")}


def check(new: dict[str, str], old: dict[str, str]) -> int:
    differences = [
        line
        for name in sorted(old.keys() | new.keys())
        for line in difflib.unified_diff(
            old.get(name, "").splitlines(),
            new.get(name, "").splitlines(),
            f"{name} ({'committed' if name in old else 'missing'})",
            f"{name} ({'generated' if name in new else 'not generated any more'})",
            lineterm="",
        )
    ]
    # An empty file that is missing, or that shouldn't be there, has no lines that differ.
    differences += [f"{name}: missing" for name in sorted(new.keys() - old.keys()) if not new[name]]
    differences += [f"{name}: not generated any more" for name in sorted(old.keys() - new.keys()) if not old[name]]
    if differences:
        print(*differences, sep="\n")
        print("vx/rpc/generated is not what proto/ says: run tools/generate and commit the result.", file=sys.stderr)
    return 1 if differences else 0


def write(new: dict[str, str], old: dict[str, str]) -> None:
    for name in old.keys() - new.keys():
        (GENERATED / name).unlink()
    for name, text in new.items():
        path = GENERATED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/generate", description="Makes vx/rpc/generated/ from proto/.")
    parser.add_argument("--check", action="store_true", help="change nothing; show what is out of date and fail")
    arguments = parser.parse_args()
    new, old = generate(), read_generated()
    if arguments.check:
        return check(new, old)
    write(new, old)
    return 0


if __name__ == "__main__":
    sys.exit(main())
