from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vx.rpc.places import Places, counted_as


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("", ""),
        ("127.0.0.1", ""),
        ("127.8.8.8", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whose_connection_it_is(host: str, network: str) -> None:
    assert counted_as(host) == network


def test_a_network_has_its_share_and_this_machine_all() -> None:
    places = Places(total=6, each=2)
    assert [places.take("192.0.2.7") for _ in range(3)] == ["", "", "there are 2 from 192.0.2.7 already"]
    assert [places.take("") for _ in range(3)] == ["", "", ""]
    assert places.take("192.0.2.8") == ""
    assert places.take("192.0.2.9") == places.take("") == "there are 6 already"
    places.give_back("192.0.2.7")
    assert places.take("192.0.2.7") == ""


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.booleans())))
def test_nothing_is_left_of_those_who_are_gone(steps: list[tuple[str, bool]]) -> None:
    places = Places(total=5, each=2)
    there: list[str] = []
    for network, comes in steps:
        if comes:
            if not places.take(network):
                there.append(network)
        elif network in there:
            there.remove(network)
            places.give_back(network)
        assert len(there) <= 5
        assert all(there.count(network) <= 2 for network in "ab")
    for network in there:
        places.give_back(network)
    assert places._taken == 0
    assert not places._taken_by
