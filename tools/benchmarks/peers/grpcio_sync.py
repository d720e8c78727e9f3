"""The peer that most Python servers are: grpcio with a pool of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tools.benchmarks import peers, scenario


def main() -> None:
    arguments = peers.parser().parse_args()
    messages, services = scenario.load_stubs(arguments.stubs)
    base: Any = services.ExportServiceServicer
    fd = os.open(arguments.file, os.O_RDONLY)
    size = os.fstat(fd).st_size

    class ExportService(base):  # type: ignore[misc]  # generated code has no types
        def GetSessionState(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
            if request.session_id != scenario.PEER_SESSION:
                context.abort(grpc.StatusCode.NOT_FOUND, "There is no session with provided ID")
            return scenario.completed_state(messages, size)

        def DownloadFile(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
            chunk_size = (request.chunk_size_kb or scenario.DEFAULT_CHUNK_KB) * 1024
            index = request.start_from_chunk_index
            while data := os.pread(fd, chunk_size, index * chunk_size):
                yield messages.FileChunk(index=index, data=data)
                index += 1

    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    services.add_ExportServiceServicer_to_server(ExportService(), server)
    if arguments.certificate:
        pair = (arguments.key.read_bytes(), arguments.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    peers.announce(port)
    server.wait_for_termination()


main()
