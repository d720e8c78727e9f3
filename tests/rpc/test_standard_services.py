"""Health and reflection, asked by grpcio's own clients of them."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import h2.events
import pytest
import trio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import proto_reflection_descriptor_database, reflection_pb2, reflection_pb2_grpc

from tests.rpc.foreign import failure, grpcio, in_thread
from tests.rpc.hand_driven import connect
from tests.rpc.probe import LIMIT_S, SERVICE, Running, start
from vx.rpc.generated.axxonsoft.bl.mmexport import ExportServiceBase
from vx.rpc.generated.descriptors import FILES
from vx.rpc.generated.grpc.reflection import v1, v1alpha

SERVING, NOT_SERVING, UNKNOWN_SERVICE = 1, 2, 3
STANDARD = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


@pytest.fixture
async def running(nursery: trio.Nursery) -> Running:
    return await start(nursery)


# ---- health


async def test_check(running: Running) -> None:
    def client() -> Any:
        with grpcio(running.address) as calls:
            stub = health_pb2_grpc.HealthStub(calls.channel)
            found = [stub.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", SERVICE)]
            unknown = health_pb2.HealthCheckRequest(service="vx.test.Nobody")
            return found, failure(lambda: stub.Check(unknown))

    found, unknown = await in_thread(client)
    assert found == [SERVING, SERVING]
    assert unknown == (grpc.StatusCode.NOT_FOUND, "service: there is no service 'vx.test.Nobody'")


@pytest.mark.parametrize(
    ("name", "statuses"), [("", [SERVING, NOT_SERVING]), (SERVICE, [SERVING, NOT_SERVING]), ("x", [UNKNOWN_SERVICE])]
)
async def test_watchers_hear_of_the_end_and_do_not_hold_it_up(running: Running, name: str, statuses: list[int]) -> None:
    first = threading.Event()

    def client() -> Any:
        with grpcio(running.address) as calls:
            watch = health_pb2_grpc.HealthStub(calls.channel).Watch(health_pb2.HealthCheckRequest(service=name))
            seen = []

            def follow() -> None:
                for answer in watch:
                    seen.append(answer.status)
                    first.set()

            return failure(follow), seen

    async def drain() -> None:
        await in_thread(first.wait, LIMIT_S)
        running.server.drain()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        end, seen = await in_thread(client)
    assert end == (grpc.StatusCode.UNAVAILABLE, "the server is going down")
    assert seen == statuses
    with trio.fail_after(LIMIT_S):
        await running.ended.wait()


async def test_a_check_while_draining(running: Running) -> None:
    peer = await connect(running.port)
    await peer.hold(running.probe)
    running.server.drain()
    await peer.next(h2.events.ConnectionTerminated)
    peer.h2.clear_outbound_data_buffer()  # with the answer to the PING, after which no call is taken
    check = peer.call("", path="/grpc.health.v1.Health/Check")
    await peer.flush()
    assert await peer.status(check) == "0"
    assert peer.data[check][5:] == b"\x08\x02"
    running.probe.release.set()
    await trio.aclose_forcefully(peer.stream)


# ---- reflection


async def test_a_client_without_proto_files_finds_everything(running: Running) -> None:
    """As grpcurl does it: list, then resolve each service down to its last field."""

    def client() -> Any:
        with grpcio(running.address) as calls:
            database = proto_reflection_descriptor_database.ProtoReflectionDescriptorDatabase(calls.channel)
            pool = descriptor_pool.DescriptorPool(database)
            export = pool.FindServiceByName("axxonsoft.bl.mmexport.ExportService")
            return (
                database.get_services(),
                {method.name: (method.input_type.full_name, method.server_streaming) for method in export.methods},
                pool.FindMessageTypeByName("axxonsoft.bl.mmexport.Options").fields_by_name["archive"].number,
                pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].server_streaming,
            )

    services, methods, number, streaming = await in_thread(client)
    assert sorted(services) == sorted([SERVICE, *STANDARD])
    served = {path.rpartition("/")[2] for path in ExportServiceBase().__mapping__()}
    assert set(methods) == served
    assert methods["DownloadFile"] == ("axxonsoft.bl.mmexport.DownloadFileRequest", True)
    assert number == 2
    assert streaming


async def ask(running: Running, **question: Any) -> Any:
    """One question, by either version; the answers must be the same."""
    texts = []
    for version, module in (("v1", v1), ("v1alpha", v1alpha)):
        options = {
            name: module.ExtensionRequest(*value) if isinstance(value, tuple) else value
            for name, value in question.items()
        }
        request = module.ServerReflectionRequest(host="a host", **options)

        def client(version: str = version, request: Any = request) -> Any:
            with grpcio(running.address) as calls:
                path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
                method: Any = calls.channel.stream_stream(path, bytes)
                return list(method(iter([request]), timeout=LIMIT_S))

        [data] = await in_thread(client)
        answer = reflection_pb2.ServerReflectionResponse.FromString(data)
        assert answer.valid_host == "a host"
        assert answer.original_request.SerializeToString() == bytes(request)
        texts.append(answer)
    assert texts[0] == texts[1]
    return texts[0]


def files_of(answer: Any) -> list[str]:
    return [FileDescriptorProto.FromString(data).name for data in answer.file_descriptor_response.file_descriptor_proto]


EXPORT = "axxonsoft/bl/mmexport/Export.proto"
SERVICE_FILE = "axxonsoft/bl/mmexport/ExportService.proto"


async def test_files_come_with_their_imports(running: Running) -> None:
    expected = [
        SERVICE_FILE,
        EXPORT,
        "axxonsoft/bl/primitive/Primitives.proto",
        "google/protobuf/duration.proto",
    ]
    by_name = await ask(running, file_by_filename=SERVICE_FILE)
    assert files_of(by_name)[0] == SERVICE_FILE
    assert sorted(files_of(by_name)) == sorted(expected)


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("axxonsoft.bl.mmexport.ExportService", SERVICE_FILE),
        ("axxonsoft.bl.mmexport.ExportService.StopSession", SERVICE_FILE),
        ("axxonsoft.bl.mmexport.ArchiveMode.Source", EXPORT),
        ("axxonsoft.bl.mmexport.ArchiveMode.Source.origin", EXPORT),
        ("axxonsoft.bl.mmexport.Options.mode", EXPORT),
        ("axxonsoft.bl.mmexport.EQuality", EXPORT),
        ("axxonsoft.bl.mmexport.C_NORMAL", EXPORT),
        ("axxonsoft.bl.mmexport.StreamType.MKV", EXPORT),
        ("google.protobuf.Duration", "google/protobuf/duration.proto"),
    ],
)
async def test_symbols(running: Running, symbol: str, file: str) -> None:
    assert files_of(await ask(running, file_containing_symbol=symbol))[0] == file


@pytest.mark.parametrize(
    ("question", "code", "text"),
    [
        ({"file_by_filename": "none.proto"}, 5, "there is no file 'none.proto'"),
        ({"file_containing_symbol": "a.b.C"}, 5, "there is no symbol 'a.b.C'"),
        ({"file_containing_symbol": ""}, 5, "there is no symbol ''"),
        (
            {"file_containing_extension": ("axxonsoft.bl.mmexport.Options", 7)},
            5,
            "'axxonsoft.bl.mmexport.Options' has no extension 7",
        ),
        ({"all_extension_numbers_of_type": "a.b.C"}, 5, "there is no symbol 'a.b.C'"),
        ({}, 3, "message_request: is missing"),
    ],
)
async def test_questions_without_an_answer(running: Running, question: dict[str, Any], code: int, text: str) -> None:
    error = (await ask(running, **question)).error_response
    assert (error.error_code, error.error_message) == (code, text)


async def test_messages_without_extensions(running: Running) -> None:
    answer = await ask(running, all_extension_numbers_of_type="axxonsoft.bl.mmexport.Options")
    assert answer.WhichOneof("message_response") == "all_extension_numbers_response"
    assert answer.all_extension_numbers_response.base_type_name == "axxonsoft.bl.mmexport.Options"
    assert not answer.all_extension_numbers_response.extension_number


async def test_many_questions_in_one_call(running: Running) -> None:
    names = list(FILES)

    def client() -> Any:
        with grpcio(running.address) as calls:
            stub = reflection_pb2_grpc.ServerReflectionStub(calls.channel)
            requests = [reflection_pb2.ServerReflectionRequest(file_by_filename=name) for name in names]
            return [files_of(answer)[0] for answer in stub.ServerReflectionInfo(iter(requests), timeout=LIMIT_S)]

    assert await in_thread(client) == names
