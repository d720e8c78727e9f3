"""The connection to a server: one method for each call, and errors told as `ClientError` with an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import betterproto
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from vx.cli.access import Access
from vx.cli.values import plain
from vx.config.addresses import Address
from vx.rpc.generated.axxonsoft.bl import archive, auth, domain, mmexport
from vx.rpc.generated.vx import v1

CALL_TIMEOUT_S = 60
"""Of an ordinary call. StopSession waits for a worker to finalise."""
LOGOUT_TIMEOUT_S = 5
SILENCE_TIMEOUT_S = 60
"""A download without a byte for this long counts as broken."""
PAGE_SIZE = 500
_SERVICE = "/axxonsoft.bl.mmexport.ExportService"


class Exit(enum.IntEnum):
    """Exit statuses; part of the interface."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    REFUSED = 5
    UNIMPLEMENTED = 6


class ClientError(Exception):
    """An expected failure: told in one line, without a traceback."""

    def __init__(
        self,
        text: str,
        status: Exit = Exit.FAILED,
        *,
        code: str = "",
        passing: bool = False,
        document: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(plain(text))
        self.status = status
        self.code = code
        """Name of the gRPC status, if it was the server's answer."""
        self.passing = passing
        """The same call may work a little later."""
        self.document = document or {}
        """What there is all the same, for --json."""


_EXIT_OF = {
    Status.INVALID_ARGUMENT: Exit.USAGE,
    Status.NOT_FOUND: Exit.NOT_FOUND,
    Status.UNAVAILABLE: Exit.UNREACHABLE,
    Status.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
    Status.RESOURCE_EXHAUSTED: Exit.REFUSED,
    Status.FAILED_PRECONDITION: Exit.REFUSED,
    Status.PERMISSION_DENIED: Exit.REFUSED,
    Status.UNAUTHENTICATED: Exit.REFUSED,
    Status.UNIMPLEMENTED: Exit.UNIMPLEMENTED,
}
_T = TypeVar("_T")
_M = TypeVar("_M", bound=betterproto.Message)
Pause = Callable[[float], Awaitable[None]]


class Backoff:
    """How long to wait before the next try: twice as long each time, and at some point not at all any more."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 15, tries: int = 8) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._tries = tries
        self._failed = 0

    def reset(self) -> None:
        """It worked: start over."""
        self._failed = 0

    def next_s(self) -> float | None:
        """Seconds to wait after another failure; None: give up."""
        self._failed += 1
        if self._failed > self._tries:
            return None
        return min(self._longest_s, self._first_s * float(2 ** (self._failed - 1)))


class Client:
    """Calls to one server. Every method raises ClientError; a cancelled one cancels its call on the server."""

    def __init__(
        self,
        channel: Channel,
        address: Address,
        pause: Pause,
        warn: Callable[[str], None],
        metadata: Mapping[str, str],
    ) -> None:
        self._channel = channel
        self._metadata = metadata
        self._stub = mmexport.ExportServiceStub(channel, timeout=CALL_TIMEOUT_S, metadata=metadata)
        self._archive = archive.ArchiveServiceStub(channel, timeout=CALL_TIMEOUT_S, metadata=metadata)
        self._reports = v1.ExportReportServiceStub(channel, timeout=CALL_TIMEOUT_S, metadata=metadata)
        self._has_reports = True
        self._address = address
        self._pause = pause
        self._warn = warn
        self._reached = False

    async def pause(self, seconds: float) -> None:
        """Wait, by the clock that the client was given."""
        await self._pause(seconds)

    async def log_in(self, user: str, password: str) -> dict[str, str]:
        """What goes with every call from then on."""
        with self._failures():
            answer = await auth.AuthenticationServiceStub(self._channel, timeout=CALL_TIMEOUT_S).authenticate_ex2(
                auth.AuthenticateRequest(user_name=user, password=password)
            )
        if answer.error_code == _Code.AUTHENTICATE_CODE_OK:
            return {answer.token_name: answer.token_value}
        text = _REFUSALS.get(answer.error_code) or answer.error_description.description or str(answer.error_code)
        raise ClientError(f"cannot log in as {user}: {text}", Exit.REFUSED, code=answer.error_code.name or "")

    async def log_out(self, metadata: Mapping[str, str]) -> None:
        """End the token. Where that doesn't work it dies by itself, in some hours."""
        stub = auth.AuthenticationServiceStub(self._channel, timeout=LOGOUT_TIMEOUT_S, metadata=metadata)
        with contextlib.suppress(GRPCError, OSError, StreamTerminatedError, ProtocolError):
            await stub.close_session(auth.CloseSessionRequest())

    async def start(self, options: mmexport.Options) -> str:
        """Start a session; its id. Not tried twice: the first try may have begun one."""
        with self._failures():
            answer = await self._stub.start_session(mmexport.StartSessionRequest(session_options=options))
        return answer.started_session_id

    async def state(self, session_id: str) -> mmexport.State:
        with self._failures():
            request = mmexport.GetSessionStateRequest(session_id=session_id)
            return (await self._stub.get_session_state(request)).session_state

    async def report(self, session_id: str) -> v1.Report | None:
        """What became of a session, source by source; None where the server has no such service."""
        if not self._has_reports:
            return None
        try:
            with self._failures():
                return (await self._reports.get_report(v1.GetReportRequest(session_id=session_id))).report
        except ClientError as error:
            if error.status is not Exit.UNIMPLEMENTED:
                raise
            self._has_reports = False
            return None

    async def estimate(self, options: mmexport.Options) -> v1.EstimateResponse:
        """What an export would find and take."""
        with self._failures():
            return await self._reports.estimate(v1.EstimateRequest(session_options=options))

    async def stop(self, session_id: str) -> mmexport.State:
        """End the work; the state after that, with the files that are there."""
        with self._failures():
            request = mmexport.StopSessionRequest(session_id=session_id)
            return (await self._stub.stop_session(request)).session_state

    async def destroy(self, session_id: str) -> None:
        with self._failures():
            await self._stub.destroy_session(mmexport.DestroySessionRequest(session_id=session_id))

    async def sessions(self) -> list[mmexport.ListSessionsResponseSessionInfo]:
        """All sessions, oldest first. After a broken connection it goes on with the page where it broke."""
        found: list[mmexport.ListSessionsResponseSessionInfo] = []
        token = ""
        backoff = Backoff()
        while True:
            request = mmexport.ListSessionsRequest(page_token=token, page_size=PAGE_SIZE)
            try:
                async with contextlib.aclosing(
                    self._answers(f"{_SERVICE}/ListSessions", request, mmexport.ListSessionsResponse)
                ) as pages:
                    async for page in pages:
                        found += page.sessions
                        token = page.next_page_token
                        backoff.reset()
            except ClientError as failure:
                await self.wait_or_raise(failure, backoff)
                if found and not token:
                    return found  # only the end of the stream was lost
            else:
                return found

    def chunks(
        self, session_id: str, file_id: str, *, chunk_kb: int, first: int
    ) -> AsyncGenerator[mmexport.FileChunk, None]:
        """The chunks of a result file from the index `first` on. Close it (`aclosing`): that ends the call."""
        request = mmexport.DownloadFileRequest(
            session_id=session_id, file_path=file_id, chunk_size_kb=chunk_kb, start_from_chunk_index=first
        )
        return self._answers(f"{_SERVICE}/DownloadFile", request, mmexport.FileChunk)

    async def cameras(self) -> list[domain.Camera]:
        """All cameras that one may see, with their archives."""
        request = domain.ListCamerasRequest(view=domain.EViewMode.VIEW_MODE_FULL, page_size=PAGE_SIZE)
        found: list[domain.Camera] = []
        async with contextlib.aclosing(
            self._answers("/axxonsoft.bl.domain.DomainService/ListCameras", request, domain.ListCamerasResponse)
        ) as pages:
            async for page in pages:
                found += page.items
        return found

    async def history(self, request: archive.GetHistory2Request) -> archive.GetHistory2Response:
        """When something was recorded."""
        with self._failures():
            return await self._archive.get_history2(request)

    async def _answers(self, method: str, request: betterproto.Message, answer: type[_M]) -> AsyncGenerator[_M, None]:
        # Not by the stub: its generators leave a stream that is not read to the end to the garbage collector.
        with self._failures():
            async with self._channel.request(
                method, Cardinality.UNARY_STREAM, type(request), answer, metadata=self._metadata
            ) as stream:
                async with asyncio.timeout(SILENCE_TIMEOUT_S):
                    await stream.send_message(request, end=True)
                while True:
                    async with asyncio.timeout(SILENCE_TIMEOUT_S):
                        message = await stream.recv_message()
                    if message is None:
                        return
                    self._reached = True
                    yield message

    async def until_it_works(self, call: Callable[[], Awaitable[_T]], backoff: Backoff) -> _T:
        """What `call` returns; tries again, with growing pauses, while its failures may pass."""
        while True:
            try:
                result = await call()
            except ClientError as failure:
                await self.wait_or_raise(failure, backoff)
            else:
                backoff.reset()
                return result

    async def wait_or_raise(self, failure: ClientError, backoff: Backoff) -> None:
        """Wait before another try; raises `failure` itself where there is no point in one.

        A server that has never answered is not waited for: more likely its address is wrong.
        """
        if not (failure.passing and self._reached):
            raise failure
        seconds = backoff.next_s()
        if seconds is None:
            raise failure
        self._warn(f"{failure}; trying again in {seconds:g} s")
        await self._pause(seconds)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Translate what grpclib, sockets and deadlines raise."""
        try:
            yield
            self._reached = True
        except GRPCError as error:
            self._reached |= error.status is not Status.UNAVAILABLE
            status = _EXIT_OF.get(error.status, Exit.FAILED)
            text = error.message or error.status.name.replace("_", " ").lower()
            raise ClientError(
                text, status, code=error.status.name, passing=error.status is Status.UNAVAILABLE
            ) from None
        except TimeoutError:
            raise ClientError(f"no answer from {self._address} in time", Exit.UNREACHABLE, passing=True) from None
        except ConnectionRefusedError:
            raise self._unreachable("connection refused; is `vx serve` running there?") from None
        except ssl.SSLCertVerificationError as error:
            raise self._unreachable(f"its certificate is not accepted: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise self._unreachable(
                f"TLS failed ({error.reason}); without [tls] there, leave out --ca and --tls"
            ) from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        except (StreamTerminatedError, ProtocolError) as error:
            hint = "" if self._reached or self._channel._ssl else "; a server with [tls] wants --ca or --tls"
            raise self._unreachable(f"the connection broke ({error}){hint}") from None
        except (ValueError, IndexError, struct.error):
            raise ClientError(f"{self._address} answered with something that is no message of the contract") from None

    def _unreachable(self, reason: str) -> ClientError:
        return ClientError(f"cannot reach {self._address}: {reason}", Exit.UNREACHABLE, passing=True)


@asynccontextmanager
async def open_client(
    address: Address, access: Access, password: str, pause: Pause, warn: Callable[[str], None]
) -> AsyncIterator[Client]:
    """A client of the server at `address`; connects with the first call, and again when the connection broke.

    With a user it logs in first, by the password, and out in the end. ClientError where that doesn't work.
    """
    # What it has to say comes out as exceptions too.
    logging.getLogger("grpclib").addHandler(logging.NullHandler())
    tls = _tls_context(access) if access.encrypts else None
    where = {"path": address.unix_path} if address.unix_path else {"host": address.host, "port": address.port}
    channel = Channel(**where, ssl=tls)
    anybody = Client(channel, address, pause, warn, {})
    try:
        if not access.user:
            yield anybody
            return
        metadata = await anybody.log_in(access.user, password)
        try:
            yield Client(channel, address, pause, warn, metadata)
        finally:
            await anybody.log_out(metadata)
    finally:
        await _hang_up(channel)


async def _hang_up(channel: Channel) -> None:
    """Close the connection now: asyncio would wait for the other side's end of TLS, in a loop that has ended."""
    connection = channel._protocol.connection if channel._protocol is not None else None
    transport = getattr(connection, "_transport", None)  # missing where it is closed already
    channel.close()
    if transport is not None:
        transport.abort()
        await asyncio.sleep(0)  # in which asyncio closes the socket
        await asyncio.sleep(0)


def _tls_context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=access.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        if access.certificate is not None:
            context.load_cert_chain(access.certificate)
    except OSError as error:
        text = f"the certificates cannot be used: {error.strerror or error}"
        raise ClientError(text, Exit.USAGE) from None
    return context


_Code = auth.AuthenticateResponseExEAuthenticateCode
_REFUSALS = {
    _Code.AUTHENTICATE_CODE_WRONG_CREDENTIALS: "the name or the password is wrong",
    _Code.AUTHENTICATE_CODE_USER_LOCKED: ("there were too many failed logins of this name; try again later"),
    _Code.AUTHENTICATE_CODE_IP_BLOCKED: ("there were too many failed logins from this machine; try again later"),
}
