"""What a screen found out about a token: whether it may be traded, why not, and what the owner can do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Finding(Enum):
    """What a token does. The first two are no reason not to trade it."""

    CLEAN = "clean"
    NO_RETURN_VALUE = "no_return_value"
    FEE_ON_TRANSFER = "fee_on_transfer"
    REBASING = "rebasing"
    FALSE_RETURNING = "false_returning"
    PAUSED = "paused"
    BLOCKLISTED = "blocklisted"
    CALLBACK = "callback"
    HONEYPOT = "honeypot"
    UNREADABLE = "unreadable"
    CODE_CHANGED = "code_changed"
    IMPLEMENTATION_CHANGED = "implementation_changed"
    UNKNOWN = "unknown"

    @property
    def accepted(self) -> bool:
        """Whether such a token may be traded."""
        return self in (Finding.CLEAN, Finding.NO_RETURN_VALUE)

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """What the owner can do."""
        return _WORDS[self][1]


_OUT = "take it out of the portfolio; what the wallet holds of it stays untouched"
_WAIT = "nothing; it is tried again before each plan, and traded when it moves again"
_WORDS = {
    Finding.CLEAN: ("moves what it is told to", ""),
    Finding.NO_RETURN_VALUE: ("moves what it is told to and returns nothing", ""),
    Finding.FEE_ON_TRANSFER: ("keeps a part of each transfer", _OUT),
    Finding.REBASING: ("its balances change by themselves", f"{_OUT}; many such tokens have a wrapped form that does not"),
    Finding.FALSE_RETURNING: ("answers a transfer with false or with nonsense", _OUT),
    Finding.PAUSED: ("moves for nobody now", _WAIT),
    Finding.BLOCKLISTED: ("shuts somebody out who has to move it", "ask its issuer; it is tried again before each plan"),
    Finding.CALLBACK: ("calls others in the middle of a transfer", _OUT),
    Finding.HONEYPOT: ("can be bought and not sold", _OUT),
    Finding.UNREADABLE: ("does not tell its balances", _OUT),
    Finding.CODE_CHANGED: ("its code is another than trimtab trust pinned", "find out why, then: trimtab trust"),
    Finding.IMPLEMENTATION_CHANGED: ("its implementation is another than trimtab trust pinned", "find out why, then: trimtab trust"),
    Finding.UNKNOWN: ("could not be tried", 'ask another endpoint, or switch the screen off by limits.token_screen = "off"'),
}


@dataclass(frozen=True, slots=True)
class ScreenedToken:
    """One token's finding; `detail` carries what was measured, in our own words."""

    token: str
    finding: Finding
    detail: str = ""

    @property
    def why(self) -> str:
        """In words, with what was measured."""
        return f"{self.finding.words} ({self.detail})" if self.detail else self.finding.words


@dataclass(frozen=True, slots=True)
class Implementation:
    """Where a proxy that is a token hands its calls on to, at the snapshot's block."""

    token: str
    address: str
