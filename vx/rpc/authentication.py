"""`axxonsoft.bl.auth.AuthenticationService`: the contract's words for what the gate says."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vx import timestamps
from vx.access.gate import Gate, Login
from vx.access.lockout import Verdict
from vx.errors import Kind, VxError
from vx.rpc.calls import StreamsResponses, current_call
from vx.rpc.generated.axxonsoft.bl.auth import (
    AuthenticateRequest,
    AuthenticateResponseEx,
    AuthenticateResponseExAuthenticateGeneralErrorDescription,
    AuthenticateResponseExEAuthenticateCode,
    AuthenticationServiceBase,
    CloseSessionRequest,
    CloseSessionResponse,
    CloseSessionResponseEErrorCode,
    GetSessionInfoRequest,
    GetSessionInfoResponse,
    RenewSessionRequest,
)
from vx.rpc.guard import TOKEN_NAME, token_in
from vx.timestamps import format_timestamp, to_datetime

log = logging.getLogger(__name__)

_Code = AuthenticateResponseExEAuthenticateCode
_CODES = {
    Verdict.OPEN: _Code.AUTHENTICATE_CODE_WRONG_CREDENTIALS,
    Verdict.ACCOUNT_LOCKED: _Code.AUTHENTICATE_CODE_USER_LOCKED,
    Verdict.ADDRESS_BLOCKED: _Code.AUTHENTICATE_CODE_IP_BLOCKED,
}


class AuthenticationService(StreamsResponses, AuthenticationServiceBase):
    """See the module. Its answers say how a login went; the calls themselves succeed."""

    def __init__(self, gate: Gate, *, now_us: Callable[[], int] = timestamps.now_us) -> None:
        self._gate = gate
        self._now_us = now_us

    async def authenticate_ex2(self, authenticate_request: AuthenticateRequest) -> AuthenticateResponseEx:
        if self._gate.is_open:
            return _general_error("this server has no users; its calls need no token")
        request = authenticate_request
        try:
            login = await self._gate.login(request.user_name, request.password, current_call().origin)
        except VxError as error:
            return _general_error(str(error))
        return self._answer(login)

    async def renew_session2(self, renew_session_request: RenewSessionRequest) -> AuthenticateResponseEx:
        call = current_call()
        value = token_in(call.metadata or {})
        if value is None or self._gate.is_open:
            return _general_error("the call has no token that could be renewed")
        try:
            return self._answer(await self._gate.renew(self._gate.find(value), call.origin))
        except VxError as error:
            return _general_error(str(error))

    async def close_session(self, close_session_request: CloseSessionRequest) -> CloseSessionResponse:
        call = current_call()
        value = token_in(call.metadata or {})
        if value is None or self._gate.is_open:
            return CloseSessionResponse(error_code=CloseSessionResponseEErrorCode.OK)  # there is nothing to close
        try:
            await self._gate.close(self._gate.find(value), call.origin)
        except VxError as error:
            log.warning("a token is closed, but not on the disk: %s", error)
            return CloseSessionResponse(error_code=CloseSessionResponseEErrorCode.GENERAL_ERROR)
        return CloseSessionResponse(error_code=CloseSessionResponseEErrorCode.OK)

    async def get_session_info(self, get_session_info_request: GetSessionInfoRequest) -> GetSessionInfoResponse:
        call = current_call()
        value = get_session_info_request.session_token or token_in(call.metadata or {})
        if value is None or self._gate.is_open:
            raise VxError(Kind.PRECONDITION, "the call has no token that something could be said of")
        try:
            token = self._gate.find(value)
        except VxError:
            token = None
        if token is None or (token.user != call.caller.name and not call.caller.rights.supervisor):
            raise VxError(Kind.NOT_FOUND, "there is no such token", field="session_token")
        return GetSessionInfoResponse(login=token.user, expires_at=to_datetime(token.expires_us))

    def _answer(self, login: Login) -> AuthenticateResponseEx:
        if login.token is None:
            return AuthenticateResponseEx(error_code=_CODES[login.verdict])
        user = login.token.user
        return AuthenticateResponseEx(
            token_name=TOKEN_NAME,
            token_value=login.value,
            expires_at=format_timestamp(login.token.expires_us),
            expires_in=(login.token.expires_us - self._now_us()) // 1_000_000,
            is_unrestricted=self._gate.rights(user).supervisor,
            user_id=user,
            roles_ids=list(self._gate.roles(user)),
            error_code=_Code.AUTHENTICATE_CODE_OK,
        )


def _general_error(text: str) -> AuthenticateResponseEx:
    return AuthenticateResponseEx(
        error_code=_Code.AUTHENTICATE_CODE_GENERAL_ERROR,
        error_description=AuthenticateResponseExAuthenticateGeneralErrorDescription(description=text),
    )
