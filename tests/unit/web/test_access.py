"""Sessions and logins of the dashboard, with the process that checks them replaced."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, PassingFault, TrimtabError
from agent.ports.users import UsersPlace
from agent.web import app_modules
from agent.web.access import MAX_LOGIN_CHECKS, MAX_SESSIONS, RESTARTED_TEXT, SESSION_ENDED_TEXT, Access, LoginResult, matches_token
from agent.web.reach import Reach
from agent.web.sessions import MAX_IDLE_S
from tests.support.fakes.clock import FakeClock

ANN = (1, ("ann", False))
BEN = (2, ("ben", True))
USERS: dict[int, tuple[str, bool]] = dict((ANN, BEN))


class FakeLoginProcess:
    """Answers with these users, or raises this error; each login is of the user with this id."""

    def __init__(self, users: Mapping[int, tuple[str, bool]], user_id: int | None = None) -> None:
        self.users = users
        self.user_id = user_id
        self.error: Exception | None = None
        self.read_error: Exception | None = None
        self.read_count = 0
        self.received_s: object = None

    async def call(self, function: object, *arguments: object) -> object:
        if self.error is not None:
            raise self.error
        if function is app_modules.users.login:
            self.received_s = arguments[-1]
            return {"user": self.user_id, "locked_s": 7}
        if self.read_error is not None:
            raise self.read_error
        self.read_count += 1
        return self.users


def access_with(
    process: FakeLoginProcess, monkeypatch: pytest.MonkeyPatch, clock: FakeClock | None = None, place: UsersPlace | None = None
) -> Access:
    access = Access(Reach(), place or UsersPlace("", "config"), clock or FakeClock(), users=USERS)
    monkeypatch.setattr(access, "_login_process", process)
    return access


def log_in(access: Access) -> LoginResult:
    return asyncio.run(access.log_in("ann", "password", "123456", "127.0.0.1"))


def test_login__is_judged_by_when_its_form_came(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeLoginProcess(USERS, ANN[0])
    monkeypatch.setattr("agent.web.access.time.time", lambda: 1_700_000_000.9)

    assert log_in(access_with(process, monkeypatch)).session_id
    assert process.received_s == 1_700_000_000


def test_watch__goes_on_after_an_error_without_sessions(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    process = FakeLoginProcess(USERS)
    process.error = ValueError("unexpected")
    access = access_with(process, monkeypatch)
    session_id = access.begin_session(ANN[0])
    monkeypatch.setattr("agent.web.access.POLL_S", 0.001)
    logger = logging.Logger("users")  # uvicorn disables those that exist when it starts
    logger.addHandler(caplog.handler)
    monkeypatch.setattr("agent.web.access.log", logger)

    async def scene() -> None:
        watch = asyncio.create_task(access.watch())
        async with asyncio.timeout(20):
            while access.find_session(session_id, touch=False) is not None:
                await asyncio.sleep(0.005)
        process.error = None
        await asyncio.sleep(0.05)
        watch.cancel()

    asyncio.run(scene())
    assert access.begin_session(ANN[0])
    assert caplog.text.count("ValueError") == 1


def test_refresh__reads_users_that_did_not_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeLoginProcess(USERS)
    access = access_with(process, monkeypatch)
    asyncio.run(access.refresh())
    asyncio.run(access.refresh())
    assert process.read_count == 1


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [(PassingFault("no answer"), True), (OperatorNeeded("not trusted"), False)],
    ids=["passing", "lasting"],
)
def test_refresh__error_ends_sessions_unless_it_may_pass(monkeypatch: pytest.MonkeyPatch, error: TrimtabError, is_kept: bool) -> None:
    process = FakeLoginProcess(USERS)
    access = access_with(process, monkeypatch)
    session = access.find_session(access.begin_session(1), touch=True)
    process.error = error
    asyncio.run(access.refresh())
    assert session is not None
    assert access.may_view(session) is is_kept
    assert access.login_required


@pytest.mark.parametrize("error", [PassingFault("no answer"), OperatorNeeded("not trusted")], ids=["passing", "lasting"])
def test_refresh__reads_again_after_an_error(monkeypatch: pytest.MonkeyPatch, error: TrimtabError) -> None:
    process = FakeLoginProcess(USERS, user_id=1)
    access = access_with(process, monkeypatch)
    process.error = error
    asyncio.run(access.refresh())
    process.error = None
    asyncio.run(access.refresh())
    assert process.read_count == 1


@pytest.mark.parametrize("change", ["size", "time", "file"])
def test_refresh__reads_a_file_whose_stamp_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    path = tmp_path / "users"
    path.write_bytes(b"ann")
    os.utime(path, ns=(5, 5))
    process = FakeLoginProcess(USERS)
    access = access_with(process, monkeypatch, place=UsersPlace(str(path)))
    asyncio.run(access.refresh())
    if change == "file":
        path.rename(tmp_path / "old")
    path.write_bytes(b"anna" if change == "size" else b"ann")
    os.utime(path, ns=(5, 6 if change == "time" else 5))
    asyncio.run(access.refresh())
    assert process.read_count == 2


@pytest.mark.parametrize("users", [{}, dict([BEN]), {1: ("ann", True)}, {1: ("eve", False)}], ids=["all", "removed", "role", "name"])
def test_set_users__ends_the_sessions_of_users_who_changed(monkeypatch: pytest.MonkeyPatch, users: dict[int, tuple[str, bool]]) -> None:
    access = access_with(FakeLoginProcess(USERS), monkeypatch)
    session = access.find_session(access.begin_session(1), touch=True)
    access.set_users(users)
    assert session.is_ended
    assert not access.may_view(session)
    assert not access.may_view(None), "a login stays needed"


def test_ended_reason__tells_a_restart_from_the_end_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeLoginProcess(USERS)
    access = access_with(process, monkeypatch)
    restarted = access_with(process, monkeypatch)
    session_id = access.begin_session(1)
    access.end_session(session_id)
    assert access.ended_reason(session_id) == SESSION_ENDED_TEXT
    assert restarted.ended_reason(session_id) == RESTARTED_TEXT
    on_paper = Access(Reach(on_paper=True), UsersPlace("", "config"), FakeClock(), users=USERS)
    assert "Open the last address" in on_paper.ended_reason(session_id)
    assert "Log in" not in on_paper.ended_reason(session_id), "there is no login"
    assert access.ended_reason(None) == "", "no reason for who has not logged in"


def test_log_in__refuses_more_checks_at_once_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    access = access_with(FakeLoginProcess(USERS, user_id=1), monkeypatch)
    access._login_check_count = MAX_LOGIN_CHECKS - 1
    assert log_in(access).session_id
    access._login_check_count = MAX_LOGIN_CHECKS
    with pytest.raises(TrimtabError, match="too many logins"):
        log_in(access)


def test_log_in__failures_use_up_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeLoginProcess(USERS, user_id=1)
    access = access_with(process, monkeypatch)
    process.error = PassingFault("no answer")
    for _ in range(MAX_LOGIN_CHECKS):
        with pytest.raises(PassingFault, match="no answer"):
            log_in(access)
    process.error = None
    assert log_in(access).session_id


def test_log_in__finds_a_user_who_was_just_added(monkeypatch: pytest.MonkeyPatch) -> None:
    access = access_with(FakeLoginProcess({**USERS, 3: ("cleo", False)}, user_id=3), monkeypatch)
    assert log_in(access).session_id


def test_log_in__finds_a_user_added_within_one_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    process = FakeLoginProcess(USERS, user_id=3)
    access = access_with(process, monkeypatch)
    asyncio.run(access.refresh())
    process.users = {**USERS, 3: ("cleo", False)}
    assert access.find_session(log_in(access).session_id, touch=False).name == "cleo"


@pytest.mark.parametrize("error", [PassingFault("no answer"), OperatorNeeded("not trusted")], ids=["passing", "lasting"])
def test_log_in__of_an_unknown_user_raises_if_users_are_unreadable(monkeypatch: pytest.MonkeyPatch, error: TrimtabError) -> None:
    process = FakeLoginProcess(USERS, user_id=3)
    process.read_error = error
    with pytest.raises(type(error)):
        log_in(access_with(process, monkeypatch))
    process.user_id = None
    assert log_in(access_with(process, monkeypatch)) == LoginResult(locked_s=7), "a wrong login needs no users"


@pytest.mark.parametrize("user_id", [None, 3], ids=["wrong", "removed meanwhile"])
def test_log_in__of_no_user_is_a_lock_out(monkeypatch: pytest.MonkeyPatch, user_id: int | None) -> None:
    assert log_in(access_with(FakeLoginProcess(USERS, user_id), monkeypatch)) == LoginResult(locked_s=7)


def test_begin_session__has_the_role_of_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    access = access_with(FakeLoginProcess(USERS), monkeypatch)
    roles = [access.find_session(access.begin_session(user_id), touch=True) for user_id in USERS]
    assert [(session.name, session.read_only) for session in roles if session] == [("ann", False), ("ben", True)]


def test_begin_session__ends_the_user_s_oldest_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    access = access_with(FakeLoginProcess(USERS), monkeypatch)
    other = access.begin_session(2)
    sessions = [access.begin_session(1) for _ in range(MAX_SESSIONS)]
    assert all(access.find_session(session_id, touch=False) for session_id in (other, *sessions))
    access.begin_session(1)
    assert access.find_session(other, touch=False) is not None
    assert [access.find_session(session_id, touch=False) is None for session_id in sessions] == [True] + [False] * (MAX_SESSIONS - 1)


def test_begin_session__ends_those_that_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    access = access_with(FakeLoginProcess(USERS), monkeypatch, clock)
    session = access.find_session(access.begin_session(2), touch=True)
    clock.advance(MAX_IDLE_S)
    access.begin_session(1)
    assert session.is_ended


@pytest.mark.parametrize("touch", [True, False])
def test_find_session__only_a_touch_resets_the_idle_time(monkeypatch: pytest.MonkeyPatch, touch: bool) -> None:
    clock = FakeClock()
    access = access_with(FakeLoginProcess(USERS), monkeypatch, clock)
    session_id = access.begin_session(1)
    clock.advance(MAX_IDLE_S - 1)
    session = access.find_session(session_id, touch=touch)
    clock.advance(1)
    assert access.may_view(session) is touch
    assert (access.find_session(session_id, touch=False) is not None) is touch
    assert session.is_ended is not touch


@pytest.mark.parametrize(("values", "is_match"), [(["a"], True), (["a", "a"], False), (["b"], False), ([], False), (None, False)])
def test_matches_token__exactly_one(values: list[str] | None, is_match: bool) -> None:
    assert matches_token(values, "a") is is_match
