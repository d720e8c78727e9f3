"""proto/ says what contract.txt says, and the generated classes say what proto/ says."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import betterproto
import pytest
from betterproto.casing import snake_case
from betterproto.compile.naming import pythonize_class_name
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.message import Message

from vx.rpc.generated.axxonsoft.bl import archive, auth, domain, mmexport, primitive
from vx.rpc.generated.grpc.health import v1 as health_v1
from vx.rpc.generated.grpc.reflection import v1 as reflection_v1
from vx.rpc.generated.grpc.reflection import v1alpha as reflection_v1alpha

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
CONTRACT = Path(__file__).with_name("contract.txt")


class Field(NamedTuple):
    number: int
    type: str
    """A scalar's name, or the full name of a message or an enum; `repeated T`; `map<K, V>`."""
    oneof: str = ""


class File(NamedTuple):
    package: str
    messages: dict[str, dict[str, Field]]
    """By their full names; likewise the enums."""
    enums: dict[str, dict[str, int]]
    methods: dict[str, tuple[str, str]]
    """`/service/method` to the types of request and response."""


SCALARS = {"double", "float", "int32", "int64", "uint32", "uint64", "bool", "string", "bytes"}


def full_type(text: str, package: str) -> str:
    if entry := re.fullmatch(r"map<(\w+), (\w+)>", text):
        return f"map<{entry[1]}, {full_type(entry[2], package)}>"
    for label in ("repeated ", "stream "):
        if text.startswith(label):
            return label + full_type(text.removeprefix(label), package)
    known = text in SCALARS or text.startswith(("google.", "axxonsoft."))
    return text if known else f"{package}.{text}"


def read_fields(text: str, package: str) -> Iterator[tuple[str, Field]]:
    oneof = ""
    for token in re.findall(r"oneof \w+ \{|\}|\d+ \w+: [^;}]+", text):
        if token.startswith("oneof"):
            oneof = token.split()[1]
        elif token == "}":
            oneof = ""
        else:
            number, name, type_ = token.strip().split(" ", 2)
            yield name.removesuffix(":"), Field(int(number), full_type(type_, package), oneof)


def read_contract() -> dict[str, File]:
    files: dict[str, File] = {}
    package = service = ""
    for line in CONTRACT.read_text("utf-8").splitlines():
        kind, _, rest = line.strip().partition(" ")
        name, _, body = rest.partition(": ")
        if kind in ("#", ""):
            continue
        if kind == "file":
            path, _, package = rest.split()
            file = files[path] = File(package, {}, {}, {})
        elif kind == "message":
            fields = {} if body == "(empty)" else dict(read_fields(body, package))
            assert fields or body == "(empty)", line
            assert body == "(empty)" or len(re.findall(r"\w: ", body)) == len(fields), line
            file.messages[f"{package}.{name}"] = fields
        elif kind == "enum":
            values = (value.split() for value in body.split(", "))
            file.enums[f"{package}.{name}"] = {value: int(number) for value, number in values}
        elif kind == "service":
            service = f"{package}.{rest.removesuffix(':')}"
        else:
            method = re.fullmatch(r"(\w+)\(((?:stream )?\w+)\) -> ((?:stream )?\w+)", line.strip())
            assert method, line
            types = full_type(method[2], package), full_type(method[3], package)
            file.methods[f"/{service}/{method[1]}"] = types
    return files


class Compiled(NamedTuple):
    folder: Path
    """With grpcio's stubs of proto/."""
    descriptors: FileDescriptorSet

    def message(self, name: str) -> type[Message]:
        pool = descriptor_pool.DescriptorPool()
        for file in self.descriptors.file:
            pool.Add(file)
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    folder = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}={folder}" for kind in ("python_out", "grpc_python_out")]
    descriptors = folder / "descriptors"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs),
            *(f"--descriptor_set_out={descriptors}", "--include_imports"),
            *sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto")),
        ],
        check=True,
    )
    return Compiled(folder, FileDescriptorSet.FromString(descriptors.read_bytes()))


def described_type(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    name = field.type_name.removeprefix(".") or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if name in entries:
        key, value = entries[name].field
        return f"map<{described_type(key, {})}, {described_type(value, {})}>"
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def read_messages(file: File, messages: Iterator[DescriptorProto], outer: str) -> None:
    for message in messages:
        name = f"{outer}.{message.name}"
        entries = {f"{name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
        file.messages[name] = {
            field.name: Field(
                field.number,
                described_type(field, entries),
                message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "",
            )
            for field in message.field
        }
        read_enums(file, iter(message.enum_type), name)
        read_messages(file, (nested for nested in message.nested_type if not nested.options.map_entry), name)


def read_enums(file: File, enums: Iterator[EnumDescriptorProto], outer: str) -> None:
    for enum in enums:
        file.enums[f"{outer}.{enum.name}"] = {value.name: value.number for value in enum.value}


def read_descriptor(descriptor: FileDescriptorProto) -> File:
    file = File(descriptor.package, {}, {}, {})
    read_messages(file, iter(descriptor.message_type), descriptor.package)
    read_enums(file, iter(descriptor.enum_type), descriptor.package)
    for service in descriptor.service:
        for method in service.method:
            types = (
                ("stream " if method.client_streaming else "") + method.input_type[1:],
                ("stream " if method.server_streaming else "") + method.output_type[1:],
            )
            file.methods[f"/{descriptor.package}.{service.name}/{method.name}"] = types
    return file


def test_the_table_is_read_whole() -> None:
    files = read_contract().values()
    assert sum(len(file.messages) for file in files) == 84
    assert sum(len(file.enums) for file in files) == 22
    assert sum(len(fields) for file in files for fields in file.messages.values()) == 300
    assert sum(len(file.methods) for file in files) == 18


def test_proto_files_hold_the_contract(compiled: Compiled) -> None:
    files = {file.name: file for file in compiled.descriptors.file if not file.name.startswith(("google/", "vx/"))}
    assert {file.syntax for file in files.values()} == {"proto3"}
    assert {name: read_descriptor(file) for name, file in files.items()} == read_contract()


def test_json_names_are_the_default_ones(compiled: Compiled) -> None:
    files = [file for file in compiled.descriptors.file if file.package == "axxonsoft.bl.mmexport"]
    fields = [field for file in files for message in file.message_type for field in message.field]
    assert len(fields) > 100
    for field in fields:
        assert field.json_name == re.sub(r"_(\w)", lambda match: match[1].upper(), field.name)


def test_grpcio_stubs_import_without_warnings(compiled: Compiled) -> None:
    code = "from axxonsoft.bl.mmexport import ExportEvent_pb2, ExportService_pb2_grpc as s; print(s.ExportServiceStub)"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=compiled.folder, capture_output=True, text=True, check=False)
    assert "ExportServiceStub" in done.stdout, done.stderr


def generated(name: str) -> Any:
    """The generated class of a message or an enum: the plugin joins the names of nested ones."""
    path = name.split(".")
    package = [part for part in path if part.islower()]
    module = importlib.import_module(".".join(["vx.rpc.generated", *package]))
    return getattr(module, pythonize_class_name("".join(path[len(package) :])))


WELL_KNOWN: dict[str, tuple[str | None, type]] = {
    # What the plugin makes of Google's own messages: the scalar that is wrapped, and the Python type.
    "google.protobuf.Duration": (None, timedelta),
    "google.protobuf.Timestamp": (None, datetime),
    "google.protobuf.BoolValue": ("bool", bool),
    "google.protobuf.StringValue": ("string", str),
}


def test_generated_messages_hold_the_contract() -> None:
    files = read_contract().values()
    messages = {name: fields for file in files for name, fields in file.messages.items()}
    enums = {name for file in files for name in file.enums}
    for message, fields in messages.items():
        cls = generated(message)
        metas = {field.name: field.metadata["betterproto"] for field in dataclasses.fields(cls)}
        python_names = {name: snake_case(name) for name in fields}
        assert set(metas) == set(python_names.values()), message
        for contract_name, field in fields.items():
            where = f"{message}.{contract_name}"
            name = python_names[contract_name]
            meta, plain = metas[name], field.type.removeprefix("repeated ")
            assert meta.number == field.number, where
            assert (meta.group or "") == field.oneof, where
            # Not from the instance, where the fields of a oneof are unset.
            default = cls()._betterproto.default_gen[name]
            assert (default is list) == field.type.startswith("repeated "), where
            if field.type.startswith("map<"):
                assert meta.map_types == ("string", "message"), where
            elif plain in enums:
                assert meta.proto_type == "enum", where
                assert cls()._betterproto.cls_by_field[name] is generated(plain), where
            elif plain in messages:
                assert meta.proto_type == "message", where
                assert cls()._betterproto.cls_by_field[name] is generated(plain), where
            elif plain in WELL_KNOWN:
                assert (meta.wraps, cls()._betterproto.cls_by_field[name]) == WELL_KNOWN[plain], where
            else:
                assert meta.proto_type == plain, where


def test_generated_enums_hold_the_contract() -> None:
    for file in read_contract().values():
        for name, values in file.enums.items():
            assert {value.name: value.value for value in generated(name)} == values, name


def test_generated_service_holds_the_contract() -> None:
    methods = {name: types for file in read_contract().values() for name, types in file.methods.items()}
    services = (
        mmexport.ExportServiceBase(),
        auth.AuthenticationServiceBase(),
        domain.DomainServiceBase(),
        archive.ArchiveServiceBase(),
        health_v1.HealthBase(),
        reflection_v1.ServerReflectionBase(),
        reflection_v1alpha.ServerReflectionBase(),
    )
    mapping = {path: handler for service in services for path, handler in service.__mapping__().items()}
    assert set(mapping) == set(methods)
    for name, (request, response) in methods.items():
        handler = mapping[name]
        assert handler.request_type is generated(request.removeprefix("stream "))
        assert handler.reply_type is generated(response.removeprefix("stream "))
        assert handler.cardinality.client_streaming is request.startswith("stream ")
        assert handler.cardinality.server_streaming is response.startswith("stream ")


ARCHIVE_STREAM = (
    mmexport.Options(
        archive=mmexport.ArchiveMode(
            sources=[
                mmexport.ArchiveModeSource(
                    origin="hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0",
                    storages=["a", "b"],
                    settings=[
                        mmexport.SourceSetting(
                            mask_space=mmexport.MaskSpace(
                                [primitive.SimplePolygon([primitive.Point(0.1, 0.0), primitive.Point(1.0, 0.3)])]
                            )
                        ),
                        mmexport.SourceSetting(vertical_text_align=mmexport.ETextAlignV.V_TOP),
                    ],
                    mask_filter={
                        "first": mmexport.TrackFilter(allow=True, tracks=[0, 1, 2**32 - 1]),
                        "none": mmexport.TrackFilter(),
                    },
                ),
                mmexport.ArchiveModeSource(origin="Ворота ☂"),
            ],
            start_timestamp="20260511T080411.155000",
            end_timestamp="20260511T080511",
            timeline_mask=[primitive.TimeRange("20260511T080411", "20260511T080412")],
            discrete=True,
        ),
        stream=mmexport.StreamType(
            format=mmexport.StreamTypeEFormat.MP4,
            settings=[
                # The default values: in a oneof they are there all the same.
                mmexport.StreamSetting(video_quality=mmexport.EQuality.C_BEST_QUALITY),
                mmexport.StreamSetting(reject_audio=False),
                mmexport.StreamSetting(audio_quality=mmexport.EQuality.C_FINE_QUALITY),
                mmexport.StreamSetting(time_lapse=mmexport.TimeLapse(speed=2.5)),
            ],
        ),
        settings=[
            mmexport.CommonSetting(comment=""),
            mmexport.CommonSetting(timezone=-210),
            mmexport.CommonSetting(
                subtitle_cast=mmexport.SubtitleInfo(
                    details=[mmexport.SubtitleInfoEEntity.SE_STREAM, mmexport.SubtitleInfoEEntity.SE_TIMESTAMP],
                    common_info_mode=mmexport.SubtitleInfoEMethod.SM_HARD,
                )
            ),
        ],
        max_file_size=2**64 - 1,
        export_agent_access_point="hosts/Server1/MMExportAgent.0",
    ),
    {
        "archive": {
            "sources": [
                {
                    "origin": "hosts/Server1/DeviceIpint.1/SourceEndpoint.video:0:0",
                    "storages": ["a", "b"],
                    "settings": [
                        {"maskSpace": {"space": [{"points": [{"x": 0.1}, {"x": 1.0, "y": 0.3}]}]}},
                        {"verticalTextAlign": "V_TOP"},
                    ],
                    "maskFilter": {"first": {"allow": True, "tracks": [0, 1, 2**32 - 1]}, "none": {}},
                },
                {"origin": "Ворота ☂"},
            ],
            "startTimestamp": "20260511T080411.155000",
            "endTimestamp": "20260511T080511",
            "timelineMask": [{"beginTime": "20260511T080411", "endTime": "20260511T080412"}],
            "discrete": True,
        },
        "stream": {
            "format": "MP4",
            "settings": [
                {"videoQuality": "C_BEST_QUALITY"},
                {"rejectAudio": False},
                {"audioQuality": "C_FINE_QUALITY"},
                {"timeLapse": {"speed": 2.5}},
            ],
        },
        "settings": [
            {"comment": ""},
            {"timezone": -210},
            {"subtitleCast": {"details": ["SE_STREAM", "SE_TIMESTAMP"], "commonInfoMode": "SM_HARD"}},
        ],
        "maxFileSize": str(2**64 - 1),
        "exportAgentAccessPoint": "hosts/Server1/MMExportAgent.0",
    },
)

LIVE_SNAPSHOT = (
    mmexport.Options(
        live=mmexport.LiveMode(
            sources=[mmexport.LiveModeSource(origin="camera", tracks=["t"])],
            duration=timedelta(minutes=1, seconds=30, microseconds=250_001),
        ),
        snapshot=mmexport.SnapshotType(
            format=mmexport.SnapshotTypeEFormat.PDF,
            settings=[
                mmexport.SnapshotSetting(snapshot_place=mmexport.ViewArea(right=0.5, bottom=0.25)),
                mmexport.SnapshotSetting(snapshot=mmexport.ExternalFrame("20260511T080411", b"\xff\xd8\x00")),
            ],
        ),
        store_result_by_export_agent=True,
        external_directory="/exports",
    ),
    {
        "live": {"sources": [{"origin": "camera", "tracks": ["t"]}], "duration": "90.250001s"},
        "snapshot": {
            "format": "PDF",
            "settings": [
                {"snapshotPlace": {"right": 0.5, "bottom": 0.25}},
                {"snapshot": {"timestamp": "20260511T080411", "image": "/9gA"}},
            ],
        },
        "storeResultByExportAgent": True,
        "externalDirectory": "/exports",
    },
)


@pytest.mark.parametrize(
    ("ours", "json"),
    [
        pytest.param(*ARCHIVE_STREAM, id="archive+stream"),
        pytest.param(*LIVE_SNAPSHOT, id="live+snapshot"),
        pytest.param(mmexport.Options(), {}, id="empty"),
        pytest.param(mmexport.Options(live=mmexport.LiveMode()), {"live": {}}, id="an empty member of a oneof"),
    ],
)
def test_options_are_the_same_bytes_to_betterproto_and_protobuf(
    compiled: Compiled, ours: mmexport.Options, json: dict[str, Any]
) -> None:
    theirs = json_format.ParseDict(json, compiled.message("axxonsoft.bl.mmexport.Options")())
    assert type(theirs).FromString(bytes(ours)) == theirs

    back = mmexport.Options().parse(theirs.SerializeToString())
    assert back == ours
    assert [betterproto.which_one_of(back, group)[0] for group in ("mode", "output_type")] == [
        theirs.WhichOneof(group) or "" for group in ("mode", "output_type")
    ]
