"""Users of the dashboard in the database: one list for all machines, apart for each wallet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from agent import app
from agent.app.settings import users
from agent.errors import ConfigError, PassingFault
from agent.ports.users import UsersPlace
from agent.store.opening import open_server_users
from agent.store.postgresql.session import store_key
from agent.store.users import FAILURES_BEFORE_LOCK, FIRST_LOCK_S, DashboardUser, UserEvent, UserEventKind, UserRow, UserStore
from agent.web.access import SERVER_POLL_S, Access
from agent.web.reach import Reach
from tests.support import agents
from tests.support.postgresql import Server
from tests.support.transactions import CHAIN_ID, OTHER

argon2 = pytest.importorskip("argon2")
pyotp = pytest.importorskip("pyotp")

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
PASSWORD = "correct horse battery"
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
ADDRESS = "192.0.2.7"
START_S = 1_800_000_000
FILE_URL = "sqlite:///mine.db"


@pytest.fixture
def config(tmp_path: Path, url: str) -> Path:
    """A config whose store is on the server."""
    config = agents.config(tmp_path)
    config.write_text(config.read_text().replace(FILE_URL, url))
    return config


@pytest.fixture
def user_store(config: Path) -> UserStore:
    """The users of a wallet: `ann`, and `eve`, who is read-only."""
    store = users._open_users(config)
    for name in ("eve", "ann"):
        store.add(name, HASH, SECRET, name == "eve", START_S)
    return store


@pytest.fixture
def place(config: Path, user_store: UserStore) -> UsersPlace:
    del user_store
    return users.users_place(config)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    monkeypatch.setattr(users, "_now_s", lambda: START_S)
    return users._now_s


def code() -> str:
    return str(pyotp.TOTP(SECRET).at(START_S))


def user_of(user_store: UserStore, name: str) -> DashboardUser:
    return next(user for user in user_store.users() if user.name == name)


def test_users_are_listed_by_name_with_their_role(user_store: UserStore) -> None:
    assert [(user.name, user.read_only) for user in user_store.users()] == [("ann", False), ("eve", True)]


def test_a_login_needs_a_code_that_no_machine_has_used(place: UsersPlace, user_store: UserStore, clock: object) -> None:
    user_id = user_of(user_store, "ann").id
    assert users.login(place, "ann", PASSWORD, code(), ADDRESS) == {"user": user_id, "locked_s": 0}
    assert users.login(place, "ann", PASSWORD, code(), ADDRESS)["user"] is None
    assert users.login(place, "ann", "wrong horse", code(), ADDRESS)["user"] is None
    kinds = [event.kind for event in user_store.events(3)]
    assert kinds == [UserEventKind.FAILED, UserEventKind.FAILED, UserEventKind.LOGIN]


def test_guesses_from_many_machines__are_counted_one_by_one(user_store: UserStore) -> None:
    def guess(number: int) -> int:
        return user_store.count_attempt("ann", f"192.0.2.{number}", START_S)

    with ThreadPoolExecutor(8) as pool:
        remaining_locks = sorted(pool.map(guess, range(12)))
    assert remaining_locks == [0] * FAILURES_BEFORE_LOCK["name"] + [FIRST_LOCK_S] * (12 - FAILURES_BEFORE_LOCK["name"])


def test_a_success_ends_the_lock_out_of_its_name(user_store: UserStore) -> None:
    for number in range(FAILURES_BEFORE_LOCK["name"]):
        user_store.count_attempt("ann", f"192.0.2.{number}", START_S)
    assert user_store.remaining_lock_s("ann", START_S) == FIRST_LOCK_S
    assert user_store.record_login(user_of(user_store, "ann"), 1, ADDRESS, START_S)
    assert user_store.remaining_lock_s("ann", START_S) == 0


def test_the_number_of_a_removed_user_does_not_return(user_store: UserStore) -> None:
    removed_id = user_of(user_store, "ann").id
    assert user_store.remove("ann", START_S)
    assert not user_store.remove("ann", START_S)
    user_store.add("ann", HASH, SECRET, False, START_S)
    assert user_of(user_store, "ann").id > removed_id
    with pytest.raises(ConfigError):
        user_store.add("ann", HASH, SECRET, False, START_S)


def test_users_of_one_wallet_are_no_users_of_another(url: str, place: UsersPlace) -> None:
    other_store = open_server_users(url, store_key(CHAIN_ID, OTHER, "live"))
    assert other_store.users() == ()
    assert not other_store.remove("ann", START_S)
    assert other_store.events(9) == ()
    with other_store.database.read("read the rows of all") as db:
        assert db.execute(select(UserRow.name)).all() == []
    other_store.add("ann", HASH, SECRET, True, START_S)
    assert len(users.known_users(place)) == 2


def test_page_server__does_not_learn_the_database_s_address(config: Path, url: str) -> None:
    place = users.users_place(config)
    assert place == UsersPlace("", str(config))
    assert url not in str(place)


def test_a_removed_user_is_logged_out_within_a_poll(place: UsersPlace, user_store: UserStore) -> None:
    now_s = 1_000.0

    async def scene() -> None:
        nonlocal now_s
        access = Access(Reach(), place, lambda: now_s)
        try:
            await access.refresh()
            session_id = access.begin_session(user_of(user_store, "ann").id)
            user_store.remove("ann", START_S)
            now_s += SERVER_POLL_S
            await access.refresh()
            assert access.find_session(session_id, touch=True) is None
        finally:
            access.close()

    asyncio.run(scene())


def test_sessions_outlive_a_database_that_does_not_answer(server: Server, place: UsersPlace, user_store: UserStore) -> None:
    now_s = 1_000.0

    async def scene() -> None:
        nonlocal now_s
        access = Access(Reach(), place, lambda: now_s)
        try:
            await access.refresh()
            session_id = access.begin_session(user_of(user_store, "ann").id)
            server.control("stop", "-m", "fast")
            try:
                now_s += SERVER_POLL_S
                await access.refresh()
                assert access.find_session(session_id, touch=True) is not None
                with pytest.raises(PassingFault):
                    user_store.users()
            finally:
                server.control("start")
            now_s += SERVER_POLL_S
            await access.refresh()
            assert access.find_session(session_id, touch=True) is not None
        finally:
            access.close()

    asyncio.run(scene())


def test_users_move_with_the_store_to_the_server_and_back(tmp_path: Path, url: str) -> None:
    config = agents.config(tmp_path)
    app.resume(config, lambda _: True)  # creates the store
    file_users = users._open_users(config)
    file_users.add("ann", HASH, SECRET, False, START_S)
    file_users.add("bob", HASH, SECRET, True, START_S)
    file_users.remove("ann", START_S)
    file_users.count_attempt("bob", ADDRESS, START_S)
    moved = (file_users.users(), file_users.events(9))
    app.copy_store(config, url)
    assert FILE_URL in config.read_text()
    config.write_text(config.read_text().replace(FILE_URL, url))
    server_users = users._open_users(config)
    assert (server_users.users(), server_users.events(9)) == moved
    server_users.add("cleo", HASH, SECRET, True, START_S)
    assert user_of(server_users, "cleo").id == 3
    server_users.record(UserEvent(START_S, UserEventKind.CONTROL, "bob", ADDRESS, "stop"))
    app.copy_store(config, "sqlite:///back.db")
    config.write_text(config.read_text().replace(url, "sqlite:///back.db"))
    back = users._open_users(config)
    assert (back.users(), back.events(9)) == (server_users.users(), server_users.events(9))
