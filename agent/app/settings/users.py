"""Users of the dashboard: add, list and remove them, check a login, show the audit log."""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from agent.accounting.export import format_utc
from agent.errors import ConfigError, ErrorCode
from agent.model import ControlCode, ControlOrigin, ControlState
from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file, users_path
from agent.store.users import DashboardUser, UserEvent, UserEventKind, UserStore

if TYPE_CHECKING:
    from agent.app.documents.owner import (
        NewUserDocument,
        RemovedUserDocument,
        UserLogDocument,
        UsersDocument,
    )
    from agent.app.start.wallet import Ask, PasswordSource
    from agent.config.loaded import ConfigSource
    from agent.store import Store

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
CODE_PATTERN = re.compile(r"[0-9]{6}")
CODE_PERIOD_S = 30
"""Period of a one-time code, in seconds; the codes before and after it are accepted too."""
MAX_PASSWORD_LENGTH = 1024
INSTALL_REMEDY = "pip install 'trimtab[dashboard]'"
DUMMY_HASH = (
    "$argon2id$v=19$m=65536,t=3,p=4$IT0BzPBxi5pVNgeycR0ZZA$"
    "SaGnb2eBYvaUzgSViPApCN7ya35PwakfXwSKjiVoI5s"
)
"""Hash checked for an unknown user, so that the check takes as long as for a known one."""
TOTP_ISSUER = "trimtab"
OWNER_ID = 1
"""Id of the only user of a place with an owner."""


def add_user(
    config: ConfigSource,
    name: str,
    password_source: PasswordSource,
    ask: Ask | None,
    *,
    read_only: bool,
) -> NewUserDocument:
    """Add a user and return the secret of its one-time codes, which is shown only now. Raises
    ConfigError for an invalid or taken name or a weak password.
    """
    for package in ("argon2", "pyotp"):
        if find_spec(package) is None:
            raise ConfigError(f"user: {package} is not installed", INSTALL_REMEDY)
    import argon2
    import pyotp

    from agent.app.start.wallet import new_password

    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"NAME: {name!r} is not a valid user name",
            "use at most 32 lower-case letters, digits, dots, hyphens and underscores",
        )
    user_store = _open_users(config)
    if any(user.name == name for user in user_store.users()):
        raise ConfigError(
            f"{name}: there is already a user with this name",
            "choose another, or remove it first: trimtab user remove",
            code=ErrorCode.EXISTS,
        )
    password_text = new_password(password_source, ask).reveal()
    if len(password_text) > MAX_PASSWORD_LENGTH:
        raise ConfigError(f"the password exceeds {MAX_PASSWORD_LENGTH} characters", "shorten it")
    totp_secret = pyotp.random_base32()
    user_store.add(
        name, argon2.PasswordHasher().hash(password_text), totp_secret, read_only, _now_s()
    )
    otpauth_uri = pyotp.TOTP(totp_secret).provisioning_uri(name=name, issuer_name=TOTP_ISSUER)
    return {"user": name, "read_only": read_only, "secret": totp_secret, "otpauth": otpauth_uri}


def list_users(config: ConfigSource) -> UsersDocument:
    """Return the users by name."""
    user_store = _open_users(config)
    now_s = _now_s()
    return {
        "users": [
            {
                "user": user.name,
                "read_only": user.read_only,
                "created": format_utc(user.created_s),
                "locked_s": user_store.remaining_lock_s(user.name, now_s),
            }
            for user in user_store.users()
        ]
    }


def remove_user(config: ConfigSource, name: str) -> RemovedUserDocument:
    """Remove a user; its sessions end, its queued controls are refused and its devices get no more
    alerts. Raises ConfigError if no user has this name.
    """
    user_store = _open_users(config)
    is_removed = user_store.remove(name, _now_s())
    # an earlier removal may have failed after the user was gone
    has_ended = _end_access(config, name, ControlOrigin.DASHBOARD, "its user was removed")
    if not is_removed and not has_ended:
        raise ConfigError(f"NAME: there is no user {name!r}", "list them: trimtab user list")
    return {"removed": name, "remaining": len(user_store.users())}


def user_log(config: ConfigSource, limit: int) -> UserLogDocument:
    """Return the newest logins, lock-outs and controls, newest first."""
    return {
        "events": [
            {
                "time": format_utc(event.at_s),
                "event": event.kind.value,
                "user": event.user,
                "address": event.address,
                "detail": event.detail,
            }
            for event in _open_users(config).events(limit)
        ]
    }


def record_token_added(config: ConfigSource, name: str, scopes: Sequence[str]) -> None:
    """Record in the audit log that a token of the API was added with these scopes."""
    event = UserEvent(_now_s(), UserEventKind.TOKEN_ADDED, name, "", " ".join(scopes))
    _open_users(config).record(event)


def end_token_access(config: ConfigSource, name: str) -> None:
    """Record in the audit log that a token of the API was revoked. What it has queued is refused,
    and its devices get no more alerts.
    """
    event = UserEvent(_now_s(), UserEventKind.TOKEN_REVOKED, name, "", "")
    _open_users(config).record(event)
    _end_access(config, name, ControlOrigin.API, "its token was revoked")


def _end_access(config: ConfigSource, name: str, origin: ControlOrigin, reason: str) -> bool:
    """Refuse the queued controls of a user or token, those on paper too, and remove its devices;
    return whether it had any.
    """
    from agent import wiring
    from agent.config.load import load_config

    loaded_config = load_config(config)
    has_ended = False
    for is_paper in (False, True):
        books_config = replace(loaded_config, is_paper=is_paper)
        if wiring.has_store(books_config):
            with wiring.open_store_offline(books_config) as (store, _):
                has_ended |= _end_access_to(store, name, origin, reason)
    return has_ended


def _end_access_to(store: Store, name: str, origin: ControlOrigin, reason: str) -> bool:
    """End the access of a user or token to one store, as `_end_access`."""
    from agent.store.controls import ControlStateChange

    device_ids = [
        device.id
        for device in store.alerts.devices()
        if (device.origin, device.user) == (origin, name)
    ]
    refusals = [
        ControlStateChange(
            queued_control.number, ControlState.REFUSED, ControlCode.USER_REMOVED, reason
        )
        for queued_control in store.controls.queued_controls()
        if (control := queued_control.control) is not None
        and (control.origin, control.asked_by) == (origin, name)
    ]
    store.controls.finish(refusals, _now_s())
    store.alerts.remove_devices(device_ids)
    return bool(refusals or device_ids)


def users_place(config: ConfigSource) -> UsersPlace:
    """Return where the users are. A file of users exists once one has been added."""
    from agent import wiring
    from agent.config.load import load_config

    loaded_config = load_config(config)
    if wiring.is_in_file(loaded_config):
        return UsersPlace(str(users_path(wiring.store_file(loaded_config))))
    return UsersPlace("", str(loaded_config.path))


def known_users(place: UsersPlace) -> dict[int, tuple[str, bool]]:
    """Return (name, read-only) of each user by its id."""
    if place.owner:
        return {OWNER_ID: (place.owner, False)}
    return {user.id: (user.name, user.read_only) for user in _user_store(place).users()}


class LoginCheck(TypedDict):
    """`user` is the id on success, else None; `locked_s` the remaining seconds of a lock-out."""

    user: int | None
    locked_s: int


def login(
    place: UsersPlace,
    name: str,
    password: str,
    code: str,
    address: str,
    received_s: int | None = None,
) -> LoginCheck:
    """Check a login.

    Each attempt counts before it is checked, an unknown name takes as long as a wrong password, and
    a code is accepted once. It has to be valid at `received_s`, when the form came, however long its
    check waits on a busy machine; without it, now.
    """
    import argon2

    user_store = _user_store(place)
    now_s = _now_s()
    client_network = _client_network(address)
    if locked_s := user_store.count_attempt(name, client_network, now_s):
        return {"user": None, "locked_s": locked_s}
    user = next(
        (dashboard_user for dashboard_user in user_store.users() if dashboard_user.name == name),
        None,
    )
    password_matches = False
    # one character beyond the limit, so that no cut password equals one of the longest
    with suppress(argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        password_matches = argon2.PasswordHasher().verify(
            DUMMY_HASH if user is None else user.password_hash, password[: MAX_PASSWORD_LENGTH + 1]
        )
    rejected_part = "name or password"
    if password_matches and user is not None:
        code_period = _code_period(user, code, now_s if received_s is None else received_s)
        if code_period and user_store.record_login(user, code_period, client_network, now_s):
            return {"user": user.id, "locked_s": 0}
        rejected_part = "one-time code used before" if code_period else "one-time code"
    return {
        "user": None,
        "locked_s": user_store.log_failed_login(name, client_network, rejected_part, now_s),
    }


def record_event(place: UsersPlace, event_kind: str, user: str, address: str, detail: str) -> None:
    """Append an event to the audit log."""
    event = UserEvent(_now_s(), UserEventKind(event_kind), user, _client_network(address), detail)
    _user_store(place).record(event)


def _code_period(user: DashboardUser, code: str, at_s: int) -> int:
    """Return the number of the period of this code, if it is valid at that time; 0 for a wrong code."""
    import pyotp

    if not CODE_PATTERN.fullmatch(code):
        return 0
    totp = pyotp.TOTP(user.totp_secret)
    matching_period = 0
    for candidate_period in (at_s // CODE_PERIOD_S + period_shift for period_shift in (-1, 0, 1)):
        if hmac.compare_digest(totp.at(candidate_period * CODE_PERIOD_S), code):
            matching_period = candidate_period
    return matching_period


def _client_network(address: str) -> str:
    """Return an address, or the /64 network of an IPv6 one, which a single attacker may own."""
    try:
        parsed_address = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed_address.version == 6 and not parsed_address.is_loopback:
        ipv4 = parsed_address.ipv4_mapped
        return str(ipv4 or ipaddress.ip_network((parsed_address, 64), strict=False))
    return str(parsed_address)


def _open_users(config: ConfigSource) -> UserStore:
    from agent import wiring
    from agent.config.load import load_config

    return wiring.open_users(load_config(config))


def _user_store(place: UsersPlace) -> UserStore:
    return open_user_file(Path(place.file)) if place.file else _open_users(Path(place.config))


def _now_s() -> int:
    return int(time.time())
