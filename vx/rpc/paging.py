"""Pages of a list, as all list methods of the contract have them: the sizes, and the tokens by which a call goes on."""

from __future__ import annotations

from vx.errors import Kind, VxError

DEFAULT_PAGE = 100
MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """Items of a page; `asked` is the request's `page_size`. VxError(INVALID)."""
    if asked < 0:
        raise VxError(Kind.INVALID, f"is {asked}; 0 (for {DEFAULT_PAGE}) to {MAX_PAGE} are allowed", field="page_size")
    return min(asked, MAX_PAGE) or DEFAULT_PAGE


def page_token(number: int) -> str:
    """By which a later call goes on after the item with this number."""
    return f"after-{number}"


def parse_token(token: str) -> int:
    """The number in a token of ours; 0 in an empty one. VxError(INVALID)."""
    if not token:
        return 0
    prefix, _, digits = token.partition("-")
    if prefix != "after" or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise VxError(Kind.INVALID, f"{token!r} is not a token that this server gave", field="page_token")
    return int(digits)
