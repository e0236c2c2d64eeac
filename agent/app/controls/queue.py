"""The queue of controls as its callers use it: check a request, seal and store it, list the queue;
and the same for the dashboard's users. Reads no chain and loads no wallet key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

from agent import wiring
from agent.app.documents.controls import (
    ControlDocument,
    ControlsDocument,
    control_document,
    stored_plan_document,
)
from agent.app.paper import paper_config
from agent.app.records.kill_switch import pause_by_file, resume_by_control
from agent.app.settings.devices import devices_document
from agent.app.settings.users import known_users, record_event
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.tables.fields import parse_address
from agent.config.writing.edits import parse_changes
from agent.errors import ConfigError, ErrorCode, PassingFault, Refused, TrimtabError
from agent.model import (
    Control,
    ControlArguments,
    ControlCode,
    ControlKind,
    ControlOrigin,
    ControlRecord,
    ControlState,
    ControlSubmission,
    ShownPlan,
)
from agent.model.controls import canonical_json
from agent.ports.paper import PaperConfig
from agent.ports.users import UsersPlace
from agent.store import Store
from agent.store.controls import ControlStateChange
from agent.store.files.locks import is_service_locked, store_lock_path
from agent.store.files.secret import ensure_secret, find_secret
from agent.store.opening import sqlite_path
from agent.store.users import UserEventKind
from agent.units import parse_raw, whole_number

MAX_LIFETIME_S = 900
MAX_ARGUMENTS_LENGTH = 4_000
"""Largest total length of the arguments."""
MAX_NAME_LENGTH = 80
"""Largest length of the requester's name."""
MAX_SHOWN_AGE_S = 900
"""Time for which a shown plan can be confirmed. An offered one waits as long as the run offers it.
"""
YES = "yes"
REPEATABLE = "many"

ARGUMENTS_BY_KIND: Mapping[ControlKind, Mapping[str, str]] = {
    ControlKind.PAUSE: {"reason": "", "hard": YES},
    ControlKind.RESUME: {},
    ControlKind.REBALANCE: {},
    ControlKind.CONFIRM: {},
    ControlKind.INVEST: {"flow": REPEATABLE},
    ControlKind.WITHDRAW: {
        "amount": "",
        "in": "",
        "pro-rata": YES,
        "to": "",
        "again": YES,
        "resume": "",
    },
    ControlKind.EDIT: {
        "set": REPEATABLE,
        "target": REPEATABLE,
        "remove": REPEATABLE,
        "in-slices": YES,
    },
    ControlKind.STOP: {"to-stable": YES, "send-to": ""},
    ControlKind.DEVICE: {"remove": "", "endpoint": "", "key": "", "auth": "", "page": ""},
    ControlKind.HOLDINGS: {"apply": YES, "deposits-to": "", "take": "", "forget": ""},
}
"""Arguments of each kind: the command's options; "yes" for a switch, "many" for repeatable ones."""
KINDS_WITHOUT_PLAN = frozenset({ControlKind.PAUSE, ControlKind.RESUME, ControlKind.DEVICE})
PAPER_KINDS = frozenset(
    {ControlKind.PAUSE, ControlKind.RESUME, ControlKind.REBALANCE, ControlKind.STOP}
)
"""Kinds that paper trading takes."""
KINDS_WITH_PLAN = frozenset(ControlKind) - KINDS_WITHOUT_PLAN
"""Kinds that need the hash of a shown plan; a stop that neither sells nor pays does not."""


def submit_control(
    config: ConfigSource, submission: ControlSubmission, *, now: Callable[[], float] = time.time
) -> Control:
    """Check a request as its command would, seal it, and queue it for the run; return the control.

    A pause takes effect at once, with or without a run. A request with the key of an earlier one
    returns that control. Raises ConfigError for an invalid argument, with field, value and remedy;
    Refused if the queue is full, the plan was not shown, the key is that of another request, or no
    paper run would take the request of a paper config.
    """
    is_pause = submission.kind is ControlKind.PAUSE
    loaded_config = load_config(config, checks_permissions=not is_pause)
    check_arguments(loaded_config, submission.kind, submission.arguments)
    if loaded_config.is_paper:
        _require_taken_on_paper(loaded_config, submission.kind, submission.arguments)
    _check_requester_and_lifetime(submission)
    now_s = int(now())
    control = Control(
        _id_of_key(submission) if submission.key else secrets.token_hex(16),
        submission.kind,
        submission.arguments,
        submission.plan_hash,
        submission.asked_by,
        submission.origin,
        now_s,
        now_s + submission.lifetime_s,
    )
    if is_pause:
        return _pause(loaded_config, control, has_key=bool(submission.key))
    secret = ensure_secret(wiring.store_file(loaded_config))
    with wiring.open_store_offline(loaded_config) as (store, _):
        if (earlier_record := store.controls.find(control.id)) is not None:
            return _require_same_request(earlier_record.control, control)
        _require_shown(store, control, secret)
        control = control.sealed(secret)
        store.controls.queue(control)
    return control


def _check_requester_and_lifetime(submission: ControlSubmission) -> None:
    asked_by = submission.asked_by
    if not asked_by or len(asked_by) > MAX_NAME_LENGTH or not asked_by.isprintable():
        raise ConfigError(
            f"asked_by: {asked_by!r} is not a name",
            f"write 1 to {MAX_NAME_LENGTH} printable characters",
        )
    if not 1 <= submission.lifetime_s <= MAX_LIFETIME_S:
        raise ConfigError(
            f"lifetime: {submission.lifetime_s} s is out of range",
            f"write 1 to {MAX_LIFETIME_S} seconds",
        )


def require_paper_kind(kind: ControlKind, arguments: ControlArguments) -> None:
    """Raise ConfigError for a control that paper trading does not take."""
    if kind not in PAPER_KINDS or {name for name, _ in arguments} - {"reason"}:
        raise ConfigError(
            f"{kind.value}: not on paper, or not with these options",
            "on paper ask for rebalance, pause, resume or stop, without options",
            code=ErrorCode.PAPER,
        )


def _require_taken_on_paper(
    loaded_config: LoadedConfig, kind: ControlKind, arguments: ControlArguments
) -> None:
    """Raise unless paper trading takes the control: a pause and its end always, others while a
    paper run goes on.
    """
    require_paper_kind(kind, arguments)
    if kind in KINDS_WITH_PLAN and not is_served(loaded_config):
        raise Refused(
            "no paper run goes on", remedy="trimtab paper starts one", code=ErrorCode.PAPER
        )


def _pause(loaded_config: LoadedConfig, control: Control, *, has_key: bool) -> Control:
    """Pause at once, then record the control. A store that cannot be opened is paused by its file,
    as by `trimtab pause`, and the control is not recorded. Only a readable record of a request with
    the same key stands in its place.
    """
    reason = control.argument("reason") or f"paused by {control.asked_by} ({control.origin.value})"
    with ExitStack() as stack:
        try:
            store, kill_switch = stack.enter_context(wiring.open_store_offline(loaded_config))
        except TrimtabError as error:
            pause_by_file(loaded_config, error)
            if control.flag("hard"):
                raise
            return control
        earlier_record = None
        if has_key:
            with suppress(TrimtabError):
                earlier_record = store.controls.find(control.id)
        if earlier_record is not None:
            return _require_same_request(earlier_record.control, control)
        kill_switch.pause(reason, control.asked_at_s, hard=control.flag("hard"))
        try:
            control = control.sealed(ensure_secret(wiring.store_file(loaded_config)))
            store.controls.record_done(control)
        except TrimtabError as error:
            raise PassingFault(
                f"paused, but the request is not recorded: {error.message}",
                error.remedy,
                code=error.code,
            ) from error
    return control


def submit_request(config: ConfigSource, submission: ControlSubmission) -> ControlDocument:
    """Submit a request of another process, and return the document of the control."""
    control = submit_control(config, submission)
    try:
        return find_control(config, control.id)
    except TrimtabError:
        if control.kind is not ControlKind.PAUSE:
            raise
    # paused by the file beside a store that cannot be opened
    control_record = ControlRecord(0, control, ControlState.DONE, "", "", (), control.asked_at_s)
    return control_document(control_record)


def _id_of_key(submission: ControlSubmission) -> str:
    """Return the id of the control with this key of a requester; ids are unique in the store."""
    key_fields = ["trimtab key 1", submission.origin.value, submission.asked_by, submission.key]
    key_bytes = canonical_json(key_fields)
    return hashlib.sha256(key_bytes).hexdigest()[:32]


def _require_same_request(known_control: Control, requested_control: Control) -> Control:
    """Return the known control with the same key. Raises Refused if its request differs."""
    if (known_control.kind, known_control.arguments, known_control.plan_hash) != (
        requested_control.kind,
        requested_control.arguments,
        requested_control.plan_hash,
    ):
        raise Refused(
            "the key is that of another request",
            remedy="use a new key for each request",
            code=ControlCode.KEY_USED,
        )
    return known_control


def list_controls(config: ConfigSource, limit: int = 100) -> ControlsDocument:
    """Return the newest controls, newest first, and the plan that waits for a confirmation."""
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, _):
        queued_count = len(store.controls.queued_controls())
        secret = find_secret(
            wiring.store_file(loaded_config)
        )  # do not create a secret just to read
        offered_plan = None if secret is None else waiting_plan(store, secret)
        control_records = store.controls.newest(limit)
    return {
        "served": is_served(loaded_config),
        "queued": queued_count,
        "waiting": None if offered_plan is None else stored_plan_document(offered_plan),
        "controls": [
            control_document(_with_expiry(control_record, is_paper=loaded_config.is_paper))
            for control_record in control_records
        ],
    }


def find_control(config: ConfigSource, control_id: str) -> ControlDocument:
    """Return one control. Raises ConfigError for an unknown id."""
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, _):
        control_record = store.controls.find(control_id)
    if control_record is None:
        raise ConfigError(
            f"control: {control_id!r} is not in the store",
            "trimtab controls lists them",
            code=ErrorCode.UNKNOWN,
        )
    return control_document(_with_expiry(control_record, is_paper=loaded_config.is_paper))


def _with_expiry(control_record: ControlRecord, *, is_paper: bool) -> ControlRecord:
    """Return a queued control whose time is over as expired, which the next run stores."""
    if control_record.state is not ControlState.QUEUED:
        return control_record
    if time.time() < control_record.control.expires_at_s:
        return control_record
    run_command = "trimtab paper" if is_paper else "trimtab run --send"
    return replace(
        control_record,
        state=ControlState.EXPIRED,
        code=ControlCode.EXPIRED,
        reason=f"no run took it in its time: start {run_command}, then ask again",
    )


def link_key(config: ConfigSource) -> bytes:
    """Return the key for links to the dashboard's confirmation. It cannot seal controls."""
    secret = ensure_secret(wiring.store_file(load_config(config)))
    return hmac.new(secret, b"trimtab links", hashlib.sha256).digest()


def is_served(loaded_config: LoadedConfig) -> bool:
    """Return whether a run serves the wallet, and so takes controls; False if that is unknown."""
    if sqlite_path(loaded_config.store_url) is None:
        with suppress(PassingFault), wiring.open_store_offline(loaded_config) as (store, _):
            return bool(store.db.is_served())
        return False
    with suppress(PassingFault):
        return is_service_locked(store_lock_path(wiring.store_file(loaded_config).resolve()))
    return False


def parse_kind(kind: str) -> ControlKind:
    """Parse the name of a kind. Raises ConfigError."""
    try:
        return ControlKind(kind)
    except ValueError:
        kind_names = ", ".join(control_kind.value for control_kind in ControlKind)
        raise ConfigError(f"kind: {kind!r} is unknown", f"choose from {kind_names}") from None


def check_arguments(
    loaded_config: LoadedConfig, kind: ControlKind, arguments: ControlArguments
) -> None:
    """Check the arguments of a kind as its command checks its options. Raises ConfigError with
    field, value and remedy.
    """
    option_kinds = ARGUMENTS_BY_KIND[kind]
    seen_names: set[str] = set()
    for argument_name, argument_value in arguments:
        if argument_name not in option_kinds:
            remedy = f"choose from {', '.join(option_kinds)}" if option_kinds else "omit it"
            raise ConfigError(f"{argument_name!r}: {kind.value} has no such argument", remedy)
        if argument_name in seen_names and option_kinds[argument_name] != REPEATABLE:
            raise ConfigError(f"{argument_name}: given twice", "give it once")
        if option_kinds[argument_name] == YES and argument_value != YES:
            raise ConfigError(
                f"{argument_name}: {argument_value!r} is not a switch", "write yes, or omit it"
            )
        seen_names.add(argument_name)
    if (
        sum(len(argument_name) + len(argument_value) for argument_name, argument_value in arguments)
        > MAX_ARGUMENTS_LENGTH
    ):
        raise ConfigError(
            f"arguments: longer than {MAX_ARGUMENTS_LENGTH} characters",
            "split the request, or shorten it",
        )
    if any(not argument_value.isprintable() for _, argument_value in arguments):
        raise ConfigError("arguments: a control character", "write printable text")
    if (check_kind := _ARGUMENT_CHECKS.get(kind)) is not None:
        check_kind(loaded_config, arguments)


def _require_shown(store: Store, control: Control, secret: bytes) -> None:
    """Raise unless the control confirms a plan that was shown for it, or needs none."""
    kind = control.kind
    arguments = control.arguments
    if not control.plan_hash:
        if kind in KINDS_WITH_PLAN and not (kind is ControlKind.STOP and not arguments):
            raise ConfigError(
                "plan_hash: missing", f"show the plan first: trimtab request {kind.value}"
            )
        return
    if kind not in KINDS_WITH_PLAN:
        raise ConfigError(f"plan_hash: {kind.value} confirms no plan", "omit it")
    if shown_plan(store, control, secret) is None:
        raise Refused(
            "the plan was not shown for this request, or too long ago",
            remedy=f"show it again: trimtab request {kind.value}",
            code=ControlCode.NOT_SHOWN,
        )


def shown_plan(store: Store, control: Control, secret: bytes) -> ShownPlan | None:
    """Return the plan that a control confirms; None if this installation did not show it for this
    request, or too long before it, or if it was altered since.
    """
    plan = store.controls.shown_plan(control.plan_hash)
    if plan is None or not plan.is_genuine(secret):
        return None
    if (plan.kind, plan.arguments) != (control.kind, control.arguments):
        return None
    is_offered = control.kind is ControlKind.CONFIRM
    age_s = abs(control.asked_at_s - plan.shown_at_s)  # the clock may have been set back since
    return plan if is_offered or age_s <= MAX_SHOWN_AGE_S else None


def waiting_plan(store: Store, secret: bytes) -> ShownPlan | None:
    """Return the plan that a run offers for confirmation; None without one, or if it was
    altered.
    """
    offered_plan = store.controls.offered_plan()
    return offered_plan if offered_plan is not None and offered_plan.is_genuine(secret) else None


def _check_invest(_: LoadedConfig, arguments: ControlArguments) -> None:
    for _name, flow_number in arguments:
        _require_positive("flow", flow_number, "trimtab flows lists the numbers")


def _check_withdraw(loaded_config: LoadedConfig, arguments: ControlArguments) -> None:
    value_by_name = dict(arguments)
    amount_text = value_by_name.get("amount")
    resumed_number = value_by_name.get("resume")
    payee = value_by_name.get("to")
    if (amount_text is None) == (resumed_number is None):
        raise ConfigError("amount: needed, unless resume is given", "give one of the two")
    if resumed_number is not None:
        _require_positive("resume", resumed_number, "trimtab withdraw lists the numbers")
        if value_by_name.keys() & {"in", "pro-rata", "again"}:
            raise ConfigError("resume: cannot be combined with in, pro-rata or again", "omit them")
    if amount_text is not None and parse_raw(amount_text, 36, "amount") == 0:
        raise ConfigError("amount: '0' must be above 0", "for example 500")
    if "in" in value_by_name and "pro-rata" in value_by_name:
        raise ConfigError("in: cannot be combined with pro-rata", "use one of them")
    if (symbol := value_by_name.get("in")) is not None:
        symbols = [asset.symbol for asset in loaded_config.config.portfolio.assets]
        if symbol not in symbols:
            raise ConfigError(
                f"in: {symbol!r} is not an asset of the portfolio",
                f"choose from {', '.join(symbols)}",
            )
    if payee is not None:
        _check_payee(loaded_config, "to", payee)


def _check_edit(_: LoadedConfig, arguments: ControlArguments) -> None:
    control = Control("", ControlKind.EDIT, arguments, "", "", ControlOrigin.CLI, 0, 0)
    config_changes = parse_changes(
        control.argument_values("set"),
        control.argument_values("target"),
        (),
        control.argument_values("remove"),
    )
    if not config_changes.has_changes:
        raise ConfigError("edit: no change given", "give set, target or remove")


def _check_stop(loaded_config: LoadedConfig, arguments: ControlArguments) -> None:
    if (payee := dict(arguments).get("send-to")) is not None:
        _check_payee(loaded_config, "send-to", payee)


def _check_payee(loaded_config: LoadedConfig, argument_name: str, payee: str) -> None:
    if parse_address(payee, argument_name) not in loaded_config.config.wallet.payout_addresses:
        raise ConfigError(
            f"{argument_name}: {payee} is not in wallet.payout_addresses",
            "only an address that the config names can be paid",
        )


DEVICE_PATTERNS = {
    "endpoint": re.compile(r"https://[a-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9_.~:%/?=&+-]{1,1500}"),
    "key": re.compile("B[A-Za-z0-9_-]{86}"),
    "auth": re.compile("[A-Za-z0-9_-]{22}"),
    "page": re.compile("(/p/[a-z0-9-]{1,60})?/alerts"),
}
"""Arguments that add a device: a push subscription, and the page of this dashboard to open."""


def _check_device(_: LoadedConfig, arguments: ControlArguments) -> None:
    value_by_name = dict(arguments)
    if "remove" in value_by_name:
        if len(value_by_name) > 1:
            raise ConfigError("remove: cannot be combined with other arguments", "omit them")
        return
    for argument_name, pattern in DEVICE_PATTERNS.items():
        if not pattern.fullmatch(value_by_name.get(argument_name, "")):
            raise ConfigError(
                f"{argument_name}: not that of a push subscription",
                "turn alerts on on the page Alerts",
            )


def _check_holdings(_: LoadedConfig, arguments: ControlArguments) -> None:
    if len(arguments) != 1:
        argument_names = ", ".join(ARGUMENTS_BY_KIND[ControlKind.HOLDINGS])
        raise ConfigError("holdings: needs one argument", f"give one of {argument_names}")


def _require_positive(argument_name: str, number_text: str, remedy: str) -> None:
    if not whole_number(number_text):
        raise ConfigError(f"{argument_name}: {number_text!r} is not a number above 0", remedy)


_ARGUMENT_CHECKS: Mapping[ControlKind, Callable[[LoadedConfig, ControlArguments], None]] = {
    ControlKind.INVEST: _check_invest,
    ControlKind.WITHDRAW: _check_withdraw,
    ControlKind.EDIT: _check_edit,
    ControlKind.STOP: _check_stop,
    ControlKind.DEVICE: _check_device,
    ControlKind.HOLDINGS: _check_holdings,
}


def submit_for_user(
    config: ConfigSource,
    users_place: UsersPlace,
    user_id: int,
    submission: ControlSubmission,
    client_address: str,
    on_paper: bool = False,
) -> str:
    """Queue a control for a user by its id, under the user's present name, with `on_paper` for the
    paper run, and return the control's id. Raises Refused if the user is gone or read-only, or is
    the owner of a set-up and the books are not those of paper, and the errors of `submit_control`.

    Nothing but a pause is queued without its entry in the audit log. A request to resume is carried
    out at once if no run would take it.
    """
    user_name, read_only = known_users(users_place).get(user_id, ("", True))
    read_only = read_only or (bool(users_place.owner) and not isinstance(config, PaperConfig))

    def log_event(event: UserEventKind, detail: str) -> None:
        event_words = ("paper" if on_paper else "", submission.kind.value, detail)
        record_event(
            users_place, event.value, user_name, client_address, " ".join(filter(None, event_words))
        )

    if read_only:
        log_event(UserEventKind.REFUSED, "read-only")
        raise Refused(
            f"{user_name or 'this user'} may not control anything",
            remedy="ask for a user without --read-only",
            code=ErrorCode.ACCESS,
        )
    is_pause = submission.kind is ControlKind.PAUSE
    if not is_pause:
        log_event(UserEventKind.CONTROL, submission.plan_hash[:16])
    try:
        if on_paper:
            config = paper_config(config)
        control = submit_control(config, replace(submission, asked_by=user_name))
    except TrimtabError as error:
        with suppress(TrimtabError):
            log_event(UserEventKind.REFUSED, error.code)
        raise
    if submission.kind is ControlKind.RESUME:
        resume_without_run(load_config(config), control)
    if is_pause:
        with suppress(TrimtabError):  # a full disk must not keep anyone from pausing
            log_event(UserEventKind.CONTROL, "")
    return control.id


def resume_without_run(loaded_config: LoadedConfig, control: Control) -> None:
    """Carry out a queued request to resume, as the run does, unless a run serves the wallet."""
    if is_served(loaded_config):
        return
    now_s = int(time.time())
    with wiring.open_store_offline(loaded_config) as (store, switch):
        control_record = store.controls.find(control.id)
        if control_record is None or not store.controls.take(control_record.sequence_number, now_s):
            return
        number = control_record.sequence_number
        try:
            control_end = resume_by_control(store, switch, number, control, now_s)
        except TrimtabError as error:
            code = error.code or ControlCode.ERROR
            control_end = ControlStateChange(number, ControlState.REFUSED, code, str(error))
        store.controls.finish([control_end], now_s)


def dashboard_controls(config: ConfigSource) -> dict[str, object]:
    """Return `controls`: the newest controls, and the plan that waits for a confirmation;
    `devices`, those of web push; and `paper_run`: the controls and the `store` of paper trading,
    empty without it.
    """
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as (store, _):
        device_documents = devices_document(loaded_config.config.alerts, store.alerts)
    paper_run: dict[str, object] = {}
    if not loaded_config.is_paper:
        with suppress(TrimtabError):
            paper_loaded_config = paper_config(loaded_config)
            paper_run = {
                **list_controls(paper_loaded_config, 50),
                "store": str(wiring.store_file(paper_loaded_config)),
            }
    return {
        "controls": list_controls(loaded_config, 50),
        "devices": device_documents,
        "paper_run": paper_run,
    }


def warm_up(_: ConfigSource) -> None:
    """Do nothing. Calling it makes a process import this module, so that the first control is
    quick.
    """
