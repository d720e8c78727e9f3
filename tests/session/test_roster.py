"""Which sessions there are, who sees them, and in what pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.session.fakes import ALICE, BOB, CAROL, COMPLETED
from tests.session.rig import refused
from vx.errors import Kind
from vx.model import Caller
from vx.session.roster import NO_SESSION, Roster
from vx.session.session import Outcome, Session


def session(number: int, caller: Caller = ALICE) -> Session:
    return Session(replace(COMPLETED, id=f"s{number}", number=number, started_by=caller), Path())


@pytest.fixture
def roster() -> Roster:
    """Those of odd numbers are Carol's."""
    roster = Roster()
    for number in range(1, 7):
        roster.add(session(number, CAROL if number % 2 else ALICE))
    return roster


def pages(roster: Roster, size: int, caller: Caller) -> list[list[int]]:
    found: list[list[int]] = []
    while page := [record.number for record in roster.page(found[-1][-1] if found else 0, size, caller)]:
        found.append(page)
    return found


def test_a_page_has_the_callers_sessions_and_goes_on_behind_those_of_others(roster: Roster) -> None:
    assert pages(roster, 2, ALICE) == [[2, 4], [6]]
    assert pages(roster, 2, CAROL) == [[1, 3], [5]]
    assert pages(roster, 4, BOB) == [[1, 2, 3, 4], [5, 6]]  # a supervisor


def test_others_sessions_are_not_there(roster: Roster) -> None:
    mine = roster.find("s2", ALICE)
    assert roster.find("s2", BOB) is mine
    for key, caller in (("s2", CAROL), ("s1", ALICE), ("s7", BOB)):
        with refused(Kind.NOT_FOUND, f"^{NO_SESSION}$"):
            roster.find(key, caller)


def test_one_that_starts_is_nobodys_and_none_behind_it_is_listed(roster: Roster) -> None:
    slow, quick = session(7), session(8)
    for each in (slow, quick):
        roster.announce(each)
    roster.add(quick)
    assert roster.get("s7") is slow
    assert slow not in roster
    assert quick in roster
    assert roster.find("s8", ALICE) is quick
    with refused(Kind.NOT_FOUND, NO_SESSION):
        roster.find("s7", ALICE)
    assert pages(roster, 9, ALICE) == [[2, 4, 6]]
    roster.add(slow)
    assert pages(roster, 9, ALICE) == [[2, 4, 6, 7, 8]]
    assert [each.record.number for each in roster] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_one_that_never_starts_holds_up_nobody_and_its_number_is_gone(roster: Roster) -> None:
    failed, late = session(7), session(8)
    for each in (failed, late):
        roster.announce(each)
    roster.add(late)
    roster.withdraw(failed)
    assert pages(roster, 9, ALICE) == [[2, 4, 6, 8]]
    assert roster.get("s7") is None
    assert roster.last_number == 8


def test_one_that_is_removed_is_missing_from_pages_alone(roster: Roster) -> None:
    first = roster.page(0, 2, BOB)
    for key in ("s2", "s4"):
        roster.remove(roster.find(key, BOB))
    assert [record.number for record in roster.page(first[-1].number, 2, BOB)] == [3, 5]
    assert roster.get("s4") is None


def test_a_destroyed_session_is_gone_once_its_work_is_over(roster: Roster) -> None:
    doomed = roster.find("s2", ALICE)
    doomed.destruction = Outcome()
    assert roster.find("s2", ALICE) is doomed
    doomed.completed.set()
    with refused(Kind.NOT_FOUND, NO_SESSION):
        roster.find("s2", ALICE)
