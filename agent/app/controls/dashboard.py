"""Controls of the dashboard's users: the role is read again, and the audit log has each request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from agent.app.controls.queue import list_controls, submit_control
from agent.app.settings.users import known_users, record_event
from agent.errors import ErrorCode, Refused, TrimtabError
from agent.model import ControlKind, ControlOrigin
from agent.store.files.users import UserEventKind


def submit_for_user(
    config: str,
    users_file: str,
    user: int,
    kind: str,
    arguments: Sequence[tuple[str, str]],
    plan_hash: str,
    address: str,
) -> str:
    """Queue a control for a user by its id and return the control's id. Raises Refused if the user
    is gone or read-only, and the errors of `submit_control`.

    Nothing but a pause is queued without its entry in the audit log.
    """
    name, read_only = known_users(users_file).get(user, ("", True))

    def record(event: UserEventKind, detail: str) -> None:
        record_event(users_file, event.value, name, address, f"{kind} {detail}".strip())

    if read_only:
        record(UserEventKind.REFUSED, "read-only")
        raise Refused(
            f"{name or 'this user'} may not control anything",
            remedy="ask for a user without --read-only",
            code=ErrorCode.ACCESS,
        )
    pauses = kind == ControlKind.PAUSE.value
    if not pauses:
        record(UserEventKind.CONTROL, plan_hash[:16])
    try:
        control = submit_control(
            config,
            kind,
            arguments,
            plan_hash=plan_hash,
            asked_by=name,
            origin=ControlOrigin.DASHBOARD,
        )
    except TrimtabError as error:
        with suppress(TrimtabError):
            record(UserEventKind.REFUSED, error.code or type(error).__name__)
        raise
    if pauses:
        with suppress(TrimtabError):  # a full disk must not keep anyone from pausing
            record(UserEventKind.CONTROL, "")
    return control.id


def dashboard_controls(config: str) -> dict[str, object]:
    """Return `controls`: the newest controls, and the plan that waits for a confirmation."""
    return {"controls": list_controls(config, 50)}


def ready(_: str) -> None:
    """Do nothing. Calling it makes a process import this module, so that the first control is quick."""
