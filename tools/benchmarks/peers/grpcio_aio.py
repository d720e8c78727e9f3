"""grpcio's asyncio server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from tools.benchmarks import peers, scenario


async def serve() -> None:
    arguments = peers.parser().parse_args()
    messages, services = scenario.load_stubs(arguments.stubs)
    base: Any = services.ExportServiceServicer
    fd = os.open(arguments.file, os.O_RDONLY)
    size = os.fstat(fd).st_size

    class ExportService(base):  # type: ignore[misc]  # generated code has no types
        async def GetSessionState(self, request: Any, context: Any) -> Any:  # noqa: N802
            if request.session_id != scenario.PEER_SESSION:
                await context.abort(grpc.StatusCode.NOT_FOUND, "There is no session with provided ID")
            return scenario.completed_state(messages, size)

        async def DownloadFile(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
            chunk_size = (request.chunk_size_kb or scenario.DEFAULT_CHUNK_KB) * 1024
            index = request.start_from_chunk_index
            while data := os.pread(fd, chunk_size, index * chunk_size):
                yield messages.FileChunk(index=index, data=data)
                index += 1

    server = grpc.aio.server()
    services.add_ExportServiceServicer_to_server(ExportService(), server)
    if arguments.certificate:
        pair = (arguments.key.read_bytes(), arguments.certificate.read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    peers.announce(port)
    await server.wait_for_termination()


asyncio.run(serve())
