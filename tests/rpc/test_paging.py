from __future__ import annotations

import pytest

from vx.errors import VxError
from vx.rpc.paging import page_size, page_token, parse_token


@pytest.mark.parametrize(("asked", "size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_a_thousand_items_at_most(asked: int, size: int) -> None:
    assert page_size(asked) == size


def test_no_page_has_less_than_none() -> None:
    with pytest.raises(VxError, match=r"page_size: is -1; 0 \(for 100\) to 1000 are allowed"):
        page_size(-1)


@pytest.mark.parametrize("number", [0, 7, 10**18 - 1])
def test_a_token_leads_back_to_its_item(number: int) -> None:
    assert parse_token(page_token(number)) == number
    assert parse_token("") == 0
