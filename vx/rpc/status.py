"""The one map from vx's kinds of error to gRPC's status codes."""

from __future__ import annotations

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from vx.errors import Kind, VxError

STATUS_OF = {
    Kind.INVALID: Status.INVALID_ARGUMENT,
    Kind.NOT_FOUND: Status.NOT_FOUND,
    Kind.UNAUTHENTICATED: Status.UNAUTHENTICATED,
    Kind.DENIED: Status.PERMISSION_DENIED,
    Kind.EXHAUSTED: Status.RESOURCE_EXHAUSTED,
    Kind.UNSUPPORTED: Status.UNIMPLEMENTED,
    Kind.PRECONDITION: Status.FAILED_PRECONDITION,
    Kind.OUT_OF_RANGE: Status.OUT_OF_RANGE,
    Kind.ABORTED: Status.ABORTED,
    Kind.UNAVAILABLE: Status.UNAVAILABLE,
    Kind.DATA_LOSS: Status.DATA_LOSS,
}


def to_grpc_error(error: VxError) -> GRPCError:
    """The error as a client gets it."""
    return GRPCError(STATUS_OF[error.kind], str(error))
