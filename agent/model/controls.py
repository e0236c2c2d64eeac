"""Controls: actions that the owner requests from outside the running agent, and their states."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

ControlArguments = tuple[tuple[str, str], ...]
"""Pairs of an option's name, without dashes, and its text; an option may be repeated."""


class ControlKind(Enum):
    """Action of a control, by the name of its command."""

    PAUSE = "pause"
    RESUME = "resume"
    REBALANCE = "rebalance"
    CONFIRM = "confirm"
    INVEST = "invest"
    WITHDRAW = "withdraw"
    EDIT = "edit"
    STOP = "stop"
    DEVICE = "device"
    HOLDINGS = "holdings"
    """Changes what counts as whose: ledgers, their transfers, or a position."""


class ControlOrigin(Enum):
    """Part of the program that a control came from."""

    DASHBOARD = "dashboard"
    API = "api"
    TELEGRAM = "telegram"
    CLI = "cli"
    ASSISTANT = "assistant"


class ControlState(Enum):
    """State of a control. DONE, REFUSED, FAILED and EXPIRED are final."""

    QUEUED = "queued"
    TAKEN = "taken"
    DONE = "done"
    REFUSED = "refused"
    """Nothing was sent."""
    FAILED = "failed"
    """Begun, and not completed; its transactions are in the journal."""
    EXPIRED = "expired"


class ControlCode(StrEnum):
    """Cause of a refused or failed control that no guard and no error code of its action names."""

    SEAL = "seal"
    """Not written by this installation or changed since, or the installation's secret is
    unreadable.
    """
    CLOCK = "clock"
    """Dated in the future, valid for too long, or the clock was set back."""
    EXPIRED = "expired"
    """The control expired before the run took it, or before its plan was ready."""
    REPLAYED = "replayed"
    """Already carried out."""
    NOT_SHOWN = "not_shown"
    """The plan's hash is unknown: the plan was never shown, or was shown too long ago."""
    PLAN_CHANGED = "plan_changed"
    """The plan differs from the one shown."""
    NOT_WAITING = "not_waiting"
    """The confirmed plan is no longer waiting, for example because it was already confirmed."""
    WIDENS = "widens"
    """The edit would permit more than the confirmed config."""
    QUEUE_FULL = "queue_full"
    KEY_USED = "key_used"
    """The idempotency key is that of another request."""
    PLAN_USED = "plan_used"
    """Another control has confirmed the shown plan."""
    UNCHANGED = "unchanged"
    """It would change nothing."""
    USER_REMOVED = "user_removed"
    """The user who asked for it was removed."""
    PAUSED_SINCE = "paused_since"
    """The pause came after the request to resume."""
    INTERRUPTED = "interrupted"
    """The run ended while it carried the control out."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ControlSubmission:
    """A request for a control. A further one with the `key` of an earlier one of the same requester
    does nothing. `plan_hash` is that of Control; `lifetime_s` is how long the control is valid.
    """

    kind: ControlKind
    arguments: ControlArguments
    asked_by: str
    origin: ControlOrigin
    plan_hash: str = ""
    key: str = ""
    lifetime_s: int = 300


@dataclass(frozen=True, slots=True)
class Control:
    """A requested action. Times are Unix seconds of this machine.

    `plan_hash` is the hash of the shown plan that the control confirms, "" if it confirms none.
    `seal` is an HMAC-SHA256 over all other fields, as hex digits.
    """

    id: str
    kind: ControlKind
    arguments: ControlArguments
    plan_hash: str
    asked_by: str
    origin: ControlOrigin
    asked_at_s: int
    expires_at_s: int
    seal: str = ""

    def argument_values(self, name: str) -> tuple[str, ...]:
        """Return every value of an argument."""
        return tuple(option_text for option, option_text in self.arguments if option == name)

    def argument(self, name: str) -> str | None:
        """Return the value of an argument; None if it is missing."""
        return next(iter(self.argument_values(name)), None)

    def flag(self, name: str) -> bool:
        """Return whether an argument is "yes"."""
        return self.argument(name) == "yes"

    def sealed(self, secret: bytes) -> Control:
        """Return the control with its seal."""
        return replace(self, seal=self._seal(secret))

    def is_genuine(self, secret: bytes) -> bool:
        """Return whether the seal was made with `secret` over exactly these fields."""
        return hmac.compare_digest(self.seal.encode(), self._seal(secret).encode())

    def _seal(self, secret: bytes) -> str:
        return hmac.new(secret, self._canonical_bytes(), hashlib.sha256).hexdigest()

    def _canonical_bytes(self) -> bytes:
        fields = [
            "trimtab control 1",
            self.id,
            self.kind.value,
            [list(pair) for pair in self.arguments],
            self.plan_hash,
            self.asked_by,
            self.origin.value,
            self.asked_at_s,
            self.expires_at_s,
        ]
        return canonical_json(fields)


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A control as stored. `code` is "" or a ControlCode, a guard or an error's code;
    `result_pairs` are pairs such as ("transaction", hash). `changed_s` is when it got its state.
    """

    sequence_number: int
    control: Control
    state: ControlState
    code: str
    reason: str
    result_pairs: tuple[tuple[str, str], ...]
    changed_s: int


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """A line of the audit log, which only grows: a control got the state `state`."""

    sequence_number: int
    control_id: str
    kind: str
    origin: str
    asked_by: str
    state: str
    code: str
    reason: str
    at_s: int


@dataclass(frozen=True, slots=True)
class ShownPlan:
    """A plan as shown to its owner, for a control to confirm.

    `binding_texts` must be equal when the plan is carried out. `amounts` are (name, amount,
    tolerance): planned changes in base units by token or position, which may differ by at most the
    tolerance. `shown_json` is the JSON text that was shown, `after_control` the number of the newest
    control at that time. `seal` is an HMAC-SHA256 over the hash, the time and that number.
    """

    kind: ControlKind
    arguments: ControlArguments
    binding_texts: tuple[tuple[str, str], ...]
    amounts: tuple[tuple[str, int, int], ...]
    shown_at_s: int = 0
    shown_json: str = ""
    seal: str = ""
    after_control: int = 0

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the shown document and its binding contents, as hex digits."""
        fields = [
            "trimtab plan 1",
            self.kind.value,
            [list(pair) for pair in self.arguments],
            [list(pair) for pair in self.binding_texts],
            [[name, str(amount), str(tolerance)] for name, amount, tolerance in self.amounts],
            self.shown_json,
        ]
        return hashlib.sha256(canonical_json(fields)).hexdigest()

    def sealed(self, secret: bytes) -> ShownPlan:
        """Return the plan with its seal."""
        return replace(self, seal=self._seal(secret))

    def is_genuine(self, secret: bytes) -> bool:
        """Return whether the seal was made with `secret` over exactly this plan."""
        return hmac.compare_digest(self.seal.encode(), self._seal(secret).encode())

    def _seal(self, secret: bytes) -> str:
        fields = ["trimtab plan 1", self.hash, self.shown_at_s, self.after_control]
        return hmac.new(secret, canonical_json(fields), hashlib.sha256).hexdigest()

    def difference(self, replanned: ShownPlan) -> str:
        """Return the first difference of the plan `replanned` from this one, beyond the tolerances;
        "" if there is none.
        """
        if (self.kind, self.arguments) != (replanned.kind, replanned.arguments):
            return "it was shown for another request"
        shown_texts = dict(self.binding_texts)
        current_texts = dict(replanned.binding_texts)
        for name in (*shown_texts, *current_texts):
            shown_text = shown_texts.get(name)
            current_text = current_texts.get(name)
            if shown_text != current_text:
                return f"{name}: {current_text or 'none'}, shown {shown_text or 'none'}"
        shown_amounts = {
            name: (shown_amount, tolerance) for name, shown_amount, tolerance in self.amounts
        }
        current_amounts = {name: current_amount for name, current_amount, _ in replanned.amounts}
        for name in (*shown_amounts, *current_amounts):
            shown_amount, tolerance = shown_amounts.get(name, (0, 0))
            if abs(current_amounts.get(name, 0) - shown_amount) > tolerance:
                return f"{name}: {current_amounts.get(name, 0)}, shown {shown_amount}"
        return ""


@dataclass(frozen=True, slots=True)
class PlanLink:
    """A link to the dashboard's confirmation of a plan: the first digits of the plan's hash, valid
    before `until_s`, Unix seconds. It leads to the login page and does nothing itself.
    """

    plan_hash_prefix: str
    until_s: int

    def signature(self, key: bytes) -> str:
        """Return the HMAC-SHA256 of the link, as hex digits."""
        fields = canonical_json(["trimtab link 1", self.plan_hash_prefix, self.until_s])
        return hmac.new(key, fields, hashlib.sha256).hexdigest()

    def query(self, key: bytes) -> str:
        """Return the query string of the link's URL."""
        return f"plan={self.plan_hash_prefix}&until={self.until_s}&sig={self.signature(key)}"

    def is_genuine(self, key: bytes, signature: str, now_s: float) -> bool:
        """Return whether the link was signed with `key` and is still valid."""
        is_same_signature = hmac.compare_digest(self.signature(key).encode(), signature.encode())
        return bool(key) and is_same_signature and now_s < self.until_s


def canonical_json(fields: object) -> bytes:
    """Return the canonical encoding of a list of texts, numbers and lists."""
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()
