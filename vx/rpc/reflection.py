"""Server reflection, by its two names: what is served, and the compiled proto files, for clients that have none.

The answers are looked up in vx/rpc/generated/descriptors.py, so that the server needs no protobuf runtime. That module
is loaded with the first question.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import cache
from typing import Any, Protocol

import betterproto
from grpclib.const import Status

from vx.rpc.calls import StreamsResponses
from vx.rpc.generated.grpc.reflection import v1, v1alpha


class _NoAnswerError(Exception):
    """Told in an error_response; the call goes on."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Catalogue:
    """What the compiled files declare."""

    def __init__(self) -> None:
        from vx.rpc.generated.descriptors import FILES

        self._files = FILES
        self._by_symbol = {symbol: name for name, file in FILES.items() for symbol in file.symbols}
        self._by_extension = {extension: name for name, file in FILES.items() for extension in file.extensions}

    def descriptors(self, file_name: str) -> list[bytes]:
        """The file, then all that it imports, each once."""
        if file_name not in self._files:
            raise _NoAnswerError(Status.NOT_FOUND, f"there is no file {file_name!r}")
        names = [file_name]
        for name in names:  # grows meanwhile
            names += [imported for imported in self._files[name].imports if imported not in names]
        return [self._files[name].descriptor for name in names]

    def file_of_symbol(self, symbol: str) -> str:
        if symbol not in self._by_symbol:
            raise _NoAnswerError(Status.NOT_FOUND, f"there is no symbol {symbol!r}")
        return self._by_symbol[symbol]

    def file_of_extension(self, message: str, number: int) -> str:
        if (message, number) not in self._by_extension:
            raise _NoAnswerError(Status.NOT_FOUND, f"{message!r} has no extension {number}")
        return self._by_extension[message, number]

    def extension_numbers(self, message: str) -> list[int]:
        self.file_of_symbol(message)
        return sorted(number for extended, number in self._by_extension if extended == message)


_catalogue = cache(_Catalogue)


class _Messages(Protocol):
    """The module of either version: their messages are the same by other names."""

    ServerReflectionResponse: Any
    FileDescriptorResponse: Any
    ExtensionNumberResponse: Any
    ListServiceResponse: Any
    ServiceResponse: Any
    ErrorResponse: Any


def _answer(request: Any, messages: _Messages, services: Iterable[str]) -> Any:
    try:
        fields = _find(request, messages, services)
    except _NoAnswerError as error:
        fields = {
            "error_response": messages.ErrorResponse(error_code=error.status.value, error_message=str(error)),
        }
    return messages.ServerReflectionResponse(valid_host=request.host, original_request=request, **fields)


def _find(request: Any, messages: _Messages, services: Iterable[str]) -> dict[str, Any]:
    question: str
    value: Any
    question, value = betterproto.which_one_of(request, "message_request")
    catalogue = _catalogue()
    match question:
        case "file_by_filename":
            name = value
        case "file_containing_symbol":
            name = catalogue.file_of_symbol(value)
        case "file_containing_extension":
            name = catalogue.file_of_extension(value.containing_type, value.extension_number)
        case "all_extension_numbers_of_type":
            numbers = catalogue.extension_numbers(value)
            answer = messages.ExtensionNumberResponse(base_type_name=value, extension_number=numbers)
            return {"all_extension_numbers_response": answer}
        case "list_services":
            names = [messages.ServiceResponse(name=service) for service in services]
            return {"list_services_response": messages.ListServiceResponse(service=names)}
        case _:
            raise _NoAnswerError(Status.INVALID_ARGUMENT, "message_request: is missing")
    answer = messages.FileDescriptorResponse(file_descriptor_proto=catalogue.descriptors(name))
    return {"file_descriptor_response": answer}


class ReflectionService(StreamsResponses, v1.ServerReflectionBase):
    """`grpc.reflection.v1.ServerReflection`; `services` are the full names that it lists."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)

    async def server_reflection_info(
        self, server_reflection_request_iterator: AsyncIterator[v1.ServerReflectionRequest]
    ) -> AsyncIterator[v1.ServerReflectionResponse]:
        async for request in server_reflection_request_iterator:
            yield _answer(request, v1, self._services)


class AlphaReflectionService(StreamsResponses, v1alpha.ServerReflectionBase):
    """`grpc.reflection.v1alpha.ServerReflection`."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted(services)

    async def server_reflection_info(
        self, server_reflection_request_iterator: AsyncIterator[v1alpha.ServerReflectionRequest]
    ) -> AsyncIterator[v1alpha.ServerReflectionResponse]:
        async for request in server_reflection_request_iterator:
            yield _answer(request, v1alpha, self._services)
