"""Users of the dashboard: who may log in, how often one may guess, and what the audit log keeps."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import insert

from agent import wiring
from agent.app.settings import users
from agent.app.start.wallet import PasswordSource
from agent.config.load import load_config
from agent.errors import ConfigError, OperatorNeeded, Retryable
from agent.model import AlertDevice, Control, ControlKind, ControlOrigin, ControlState
from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file
from agent.store.users import (
    FAILURE_MEMORY_S,
    FAILURES_BEFORE_LOCK,
    FIRST_LOCK_S,
    LONGEST_LOCK_S,
    MAX_EVENTS,
    UserEvent,
    UserEventKind,
    UserEventRow,
    UserStore,
)
from tests.support import agents
from tests.support.fakes.clock import FakeClock
from tests.support.text import raises_code, raises_field

argon2 = pytest.importorskip("argon2")
pyotp = pytest.importorskip("pyotp")

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
PASSWORD = "correct horse battery"
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
HERE = "192.0.2.7"
START_S = 1_800_000_000


def code_at(clock: FakeClock) -> str:
    """Return the code that is valid now."""
    return str(pyotp.TOTP(SECRET).at(clock.now_s()))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(START_S)
    monkeypatch.setattr(users, "_now_s", clock.now_s)
    return clock


@pytest.fixture
def place(tmp_path: Path) -> UsersPlace:
    """A file with the user `ann`."""
    path = tmp_path / "trimtab.db.users"
    open_user_file(path).add("ann", HASH, SECRET, False, START_S)
    return UsersPlace(str(path))


@pytest.fixture
def user_store(place: UsersPlace) -> UserStore:
    return open_user_file(Path(place.file))


@pytest.fixture
def portfolio(tmp_path: Path) -> Path:
    """The config of a portfolio whose dashboard has the user `ann`."""
    open_user_file(tmp_path / "mine.db.users").add("ann", HASH, SECRET, False, START_S)
    return agents.config(tmp_path)


def kinds(user_store: UserStore) -> list[str]:
    """Kinds of the events, oldest first."""
    return [event.kind.value for event in reversed(user_store.events(1_000))]


def test_a_login_needs_name_password_and_code(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    right = ("ann", PASSWORD, code_at(clock))
    for wrong in (("bob", *right[1:]), ("ann", "wrong horse", right[2]), (*right[:2], "000000"), (*right[:2], ""), ("", "", "")):
        assert users.login(place, *wrong, HERE) == {"user": None, "locked_s": 0}
        clock.advance(FAILURE_MEMORY_S)
        right = ("ann", PASSWORD, code_at(clock))
    assert users.login(place, *right, HERE) == {"user": 1, "locked_s": 0}
    assert kinds(user_store) == ["user_added", *["login_failed"] * 5, "login"]


@pytest.mark.parametrize("waited_s", [0, 300], ids=["at once", "on a busy machine"])
def test_a_code_is_judged_by_when_its_form_came(place: UsersPlace, clock: FakeClock, waited_s: int) -> None:
    received_s = clock.now_s()
    code = code_at(clock)
    clock.advance(waited_s)

    assert users.login(place, "ann", PASSWORD, code, HERE, received_s)["user"] == 1
    assert users.login(place, "ann", PASSWORD, code, HERE, received_s)["user"] is None, "used before"


def test_a_code_of_after_its_form_came_is_refused(place: UsersPlace, clock: FakeClock) -> None:
    received_s = clock.now_s()
    clock.advance(300)

    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE, received_s)["user"] is None


def test_a_code_is_accepted_once_and_never_an_earlier_one(place: UsersPlace, clock: FakeClock) -> None:
    earlier = str(pyotp.TOTP(SECRET).at(clock.now_s() - 30))
    code = code_at(clock)
    assert users.login(place, "ann", PASSWORD, code, HERE)["user"] == 1
    for replayed in (code, earlier):
        assert users.login(place, "ann", PASSWORD, replayed, HERE)["user"] is None
    clock.advance(30)
    assert users.login(place, "ann", PASSWORD, code, HERE)["user"] is None  # still in its window
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE)["user"] == 1


def test_a_code_of_another_minute_is_refused(place: UsersPlace, clock: FakeClock) -> None:
    for shift_s, expected_login in ((-90, None), (90, None), (-30, 1), (30, 1)):
        assert users.login(place, "ann", PASSWORD, str(pyotp.TOTP(SECRET).at(clock.now_s() + shift_s)), HERE)["user"] == expected_login


def test_guesses_lock_a_name_out_and_each_further_one_for_longer(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    def guess(number: int) -> int:
        return int(users.login(place, "ann", PASSWORD, "000000", f"192.0.2.{number}")["locked_s"])

    assert [guess(number) for number in range(FAILURES_BEFORE_LOCK["name"])] == [0] * (FAILURES_BEFORE_LOCK["name"] - 1) + [FIRST_LOCK_S]
    before = kinds(user_store)
    assert guess(50) == FIRST_LOCK_S  # whatever the address, and uncounted
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE) == {"user": None, "locked_s": FIRST_LOCK_S}
    assert kinds(user_store) == before
    assert before[-2:] == ["login_failed", "locked"]
    locks = []
    for number in range(6):
        clock.advance(locks[-1] if locks else FIRST_LOCK_S)
        locks.append(guess(60 + number))
    assert locks == [120, 240, 480, LONGEST_LOCK_S, LONGEST_LOCK_S, LONGEST_LOCK_S]
    clock.advance(LONGEST_LOCK_S)
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE)["user"] == 1
    assert guess(70) == 0  # the count began anew


def test_guesses_lock_an_address_out_whatever_the_names(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    for number in range(FAILURES_BEFORE_LOCK["address"]):
        assert user_store.count_attempt(f"name{number}", HERE, clock.now_s()) == 0
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE)["locked_s"] == FIRST_LOCK_S
    assert users.login(place, "ann", PASSWORD, code_at(clock), "192.0.2.8")["user"] == 1


def test_attempts_at_the_same_time_share_no_guess(user_store: UserStore) -> None:
    """Each counts before it is checked: a sixth attempt is refused while five are being checked."""
    assert [user_store.count_attempt("ann", f"192.0.2.{n}", START_S) for n in range(6)] == [0] * 5 + [FIRST_LOCK_S]


def test_success__takes_back_its_own_address_count_alone(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    for number in range(FAILURES_BEFORE_LOCK["address"] - 2):
        user_store.count_attempt(f"name{number}", HERE, clock.now_s())
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE)["user"] == 1
    assert user_store.count_attempt("b", HERE, clock.now_s()) == 0
    assert user_store.count_attempt("c", HERE, clock.now_s()) == 0
    assert user_store.count_attempt("d", HERE, clock.now_s()) == FIRST_LOCK_S


def test_addresses_of_one_ipv6_network_count_together(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    for number in range(FAILURES_BEFORE_LOCK["address"]):
        user_store.count_attempt(f"n{number}", users._client_network(f"2001:db8::{number:x}"), clock.now_s())
    assert users.login(place, "ann", PASSWORD, code_at(clock), "2001:db8::ffff")["locked_s"] == FIRST_LOCK_S
    assert users._client_network("::1") == "::1"
    assert users._client_network("::ffff:192.0.2.1") == "192.0.2.1"


def test_an_unknown_name_takes_as_long_as_a_wrong_password(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "a.users"
    open_user_file(path).add("ann", argon2.PasswordHasher().hash(PASSWORD), SECRET, False, START_S)

    def seconds(name: str) -> float:
        began = time.process_time()
        users.login(UsersPlace(str(path)), name, "wrong", "000000", HERE)
        return time.process_time() - began

    known = min(seconds("ann") for _ in range(2))
    assert 0.4 < min(seconds("bob") for _ in range(2)) / known < 2.5


def test_a_name_that_no_user_has_is_not_logged(place: UsersPlace, clock: FakeClock, user_store: UserStore, tmp_path: Path) -> None:
    users.login(place, PASSWORD, "ann", code_at(clock), HERE)
    newest = user_store.events(1)[0]
    assert (newest.kind, newest.user, newest.address) == (UserEventKind.FAILED, "", HERE)
    assert PASSWORD.encode() not in (tmp_path / "trimtab.db.users").read_bytes()


def test_the_file_is_the_owners_alone_and_another_is_refused(place: UsersPlace, clock: FakeClock, tmp_path: Path) -> None:
    path = tmp_path / "trimtab.db.users"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD not in path.read_bytes().decode("latin-1")
    path.chmod(0o640)
    with raises_code(ConfigError, "access"):
        users.known_users(place)


def test_a_removed_user_cannot_log_in_and_its_id_never_returns(place: UsersPlace, clock: FakeClock, user_store: UserStore) -> None:
    assert user_store.remove("ann", START_S)
    assert not user_store.remove("ann", START_S)
    assert users.known_users(place) == {}
    assert users.login(place, "ann", PASSWORD, code_at(clock), HERE)["user"] is None
    user_store.add("ann", HASH, SECRET, True, START_S)
    assert users.known_users(place) == {2: ("ann", True)}
    with raises_code(ConfigError, "exists"):
        user_store.add("ann", HASH, SECRET, True, START_S)


def test_the_log_is_bounded_and_failures_push_out_no_control(user_store: UserStore) -> None:
    user_store.record(UserEvent(START_S, UserEventKind.CONTROL, "ann", HERE, "stop"))
    with user_store.database.transaction("fill") as db:
        row = {"at_s": START_S, "kind": "login_failed", "user_name": "", "address": HERE, "detail": ""}
        db.execute(insert(UserEventRow), [row] * MAX_EVENTS)
    user_store.log_failed_login("x", HERE, "password", START_S)
    kinds = [event.kind for event in user_store.events(2 * MAX_EVENTS)]
    assert kinds.count(UserEventKind.FAILED) == MAX_EVENTS
    assert UserEventKind.CONTROL in kinds


def test_a_damaged_file_admits_no_one(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "a.users"
    path.write_bytes(b"no database, and more than a hundred bytes of it" * 9)
    path.chmod(0o600)
    with raises_code(OperatorNeeded, "store"):
        users.known_users(UsersPlace(str(path)))
    with raises_code(OperatorNeeded, "store"):
        users.login(UsersPlace(str(path)), "ann", PASSWORD, code_at(clock), HERE)


def test_a_missing_file_has_no_users_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "a.users"
    store = open_user_file(path)
    assert users.known_users(UsersPlace(str(path))) == {}
    assert store.events(9) == ()
    assert not store.remove("ann", START_S)
    assert store.remaining_lock_s("ann", START_S) == 0
    assert not path.exists()


def typed(*answers: str) -> Callable[[str], str]:
    """The owner at a terminal."""
    answers_left = list(answers)
    return lambda _: answers_left.pop(0)


@pytest.mark.parametrize(
    ("name", "answers", "reason"),
    [
        pytest.param("Ann", (), "NAME: 'Ann' is not a valid user name", id="capital"),
        pytest.param("", (), "NAME: '' is not a valid user name", id="empty name"),
        pytest.param("a" * 33, (), "a' is not a valid user name", id="33 letters"),
        pytest.param("ann", (PASSWORD[:11],), "fewer than 12 characters", id="11 characters"),
        pytest.param("ann", (PASSWORD, PASSWORD + "x"), "the two passwords differ", id="other repetition"),
        pytest.param("ann", ("abcde" * 3,), "fewer than 6 different characters", id="five characters thrice"),
    ],
)
def test_user__is_not_added_with_a_poor_name_or_password(tmp_path: Path, name: str, answers: tuple[str, ...], reason: str) -> None:
    config = agents.config(tmp_path)
    with pytest.raises(ConfigError, match=reason):
        users.add_user(config, name, PasswordSource(), typed(*answers), read_only=False)
    assert users.list_users(config) == {"users": []}


def test_user__is_not_added_without_a_terminal(tmp_path: Path) -> None:
    config = agents.config(tmp_path)
    with pytest.raises(ConfigError, match="there is no terminal to ask for it"):
        users.add_user(config, "ann", PasswordSource(), None, read_only=False)
    assert users.list_users(config) == {"users": []}


def test_users__are_added_listed_and_removed(tmp_path: Path) -> None:
    config = agents.config(tmp_path)
    new_user_document = users.add_user(config, "ann", PasswordSource(), typed(PASSWORD, PASSWORD), read_only=True)
    codes = pyotp.parse_uri(new_user_document["otpauth"])
    assert (codes.secret, codes.name, codes.issuer, len(new_user_document["secret"])) == (new_user_document["secret"], "ann", "trimtab", 32)
    place = users.users_place(config)
    assert place == UsersPlace(str(tmp_path / "mine.db.users"))
    assert users.login(place, "ann", PASSWORD, codes.now(), HERE)["user"] == 1
    with raises_code(ConfigError, "exists"):
        users.add_user(config, "ann", PasswordSource(), typed(PASSWORD, PASSWORD), read_only=False)
    (row,) = users.list_users(config)["users"]
    assert (row["user"], row["read_only"], row["locked_s"]) == ("ann", True, 0)
    assert users.remove_user(config, "ann") == {"removed": "ann", "remaining": 0}
    with raises_field("NAME"):
        users.remove_user(config, "ann")
    assert [event["event"] for event in users.user_log(config, 10)["events"]] == ["user_removed", "login", "user_added"]


@pytest.mark.parametrize(
    ("origin", "end", "reason"),
    [
        pytest.param(ControlOrigin.DASHBOARD, users.remove_user, "its user was removed", id="removed user"),
        pytest.param(ControlOrigin.API, users.end_token_access, "its token was revoked", id="revoked token"),
    ],
)
@pytest.mark.parametrize("on_paper", [False, True], ids=["live", "on paper"])
def test_removed_user_s_or_token_s_queue__is_refused(
    portfolio: Path, origin: ControlOrigin, end: Callable[[Path, str], object], reason: str, on_paper: bool
) -> None:
    requests = [("ann", origin), ("bob", origin), ("ann", ControlOrigin.CLI)]
    with wiring.open_store_offline(replace(load_config(portfolio), is_paper=on_paper)) as (store, _):
        for number, (name, origin) in enumerate(requests):
            store.controls.queue(Control(f"{number:032x}", ControlKind.RESUME, (), "", name, origin, START_S, START_S + 300))
        end(portfolio, "ann")
        states = {record.control.id[-1]: (record.state, record.code, record.reason) for record in store.controls.newest()}
    waits = (ControlState.QUEUED, "", "")
    assert states == {"0": (ControlState.REFUSED, "user_removed", reason), "1": waits, "2": waits}


@pytest.mark.parametrize(
    ("origin", "end"),
    [
        (ControlOrigin.DASHBOARD, users.remove_user),
        (ControlOrigin.API, users.end_token_access),
    ],
)
def test_removed_user_s_devices_alone__get_no_more_alerts(
    portfolio: Path, origin: ControlOrigin, end: Callable[[Path, str], object]
) -> None:
    devices = [
        AlertDevice(f"https://web.push.apple.com/{number}", "", "", "/alerts", user, START_S, device_origin)
        for number, (user, device_origin) in enumerate(product(("ann", "bob"), (ControlOrigin.DASHBOARD, ControlOrigin.API)))
    ]
    with wiring.open_store_offline(load_config(portfolio)) as (store, _):
        for device in devices:
            store.alerts.add_device(device)
        assert store.alerts.devices() == tuple(devices)
        end(portfolio, "ann")
        assert store.alerts.devices() == tuple(device for device in devices if (device.user, device.origin) != ("ann", origin))


@pytest.mark.parametrize("remains", ["controls", "devices"])
def test_failed_removal__can_be_repeated(portfolio: Path, monkeypatch: pytest.MonkeyPatch, remains: str) -> None:
    with wiring.open_store_offline(load_config(portfolio)) as (store, _):
        if remains == "controls":
            store.controls.queue(Control("0" * 32, ControlKind.RESUME, (), "", "ann", ControlOrigin.DASHBOARD, START_S, START_S + 300))
        else:
            store.alerts.add_device(AlertDevice("https://web.push.apple.com/1", "", "", "/alerts", "ann", START_S))
        with monkeypatch.context() as patched, pytest.raises(Retryable, match="the store is locked"):
            patched.setattr(wiring, "open_store_offline", locked_store)
            users.remove_user(portfolio, "ann")
        assert users.remove_user(portfolio, "ann") == {"removed": "ann", "remaining": 0}
        assert store.controls.queued_controls() == ()
        assert store.alerts.devices() == ()
        with pytest.raises(ConfigError, match="no user"):
            users.remove_user(portfolio, "ann")


def locked_store(_: object) -> NoReturn:
    raise Retryable("the store is locked")
