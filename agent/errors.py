"""Error families by the operator's action, each with its exit code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.model import Verdict


EXIT_OK = 0
EXIT_USAGE = 2
EXIT_REFUSED = 10
EXIT_RETRYABLE = 11
EXIT_OPERATOR = 12
EXIT_HUNG = 13
"""A run that hung and ended itself, to be restarted."""
EXIT_DIFFERS = 14
"""A replay that decides otherwise than was decided."""
EXIT_INTERRUPTED = 130
"""A command without a chain that Ctrl-C has ended."""


EXPLAINED_EXITS = {
    "refused": EXIT_REFUSED,
    "halt": EXIT_REFUSED,
    "declined": EXIT_REFUSED,
    "failed": EXIT_RETRYABLE,
    "waiting": EXIT_RETRYABLE,
    "unfinished": EXIT_RETRYABLE,
}
"""Exit codes by outcome of a step or request; all others, such as hold, are 0. "Failed" means sent
without success.
"""


LONGEST_WORD, LONGEST_TEXT = 300, 8_000
"""Longest displayed word, and text: an error may quote any content of a file or a node."""


_FIELD = re.compile(
    r"(?:^|: )(--[a-z][a-z0-9-]*|[A-Za-z_]\w*(?:\.[\w-]+)*)(?=(?: \S+|, line \d+)?: )"
)


def printable_text(text: str) -> str:
    """Return the text with characters escaped that could steer a terminal or reverse a line, and
    long words cut (T17).
    """
    shown = text
    if not text.isprintable():
        shown = "".join(
            char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
            for char in text
        )
    if len(shown) > LONGEST_WORD:
        shown = " ".join(
            word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD - 1]}…"
            for word in shown.split(" ")
        )
    return shown if len(shown) <= LONGEST_TEXT else f"{shown[: LONGEST_TEXT - 1]}…"


class ErrorCode(StrEnum):
    """Causes of errors for programs, where no guard refused; messages are for people."""

    ACCESS = "access"
    ALLOWANCE = "allowance"
    AMOUNT = "amount"
    ANSWER = "answer"
    BATCH = "batch"
    BLOCK_CHANGED = "block_changed"
    CANNOT_CANCEL = "cannot_cancel"
    CHAIN = "chain"
    DAMAGED = "damaged"
    DEADLINE = "deadline"
    DEEP_REORG = "deep_reorg"
    EMPTY = "empty"
    ENDPOINT = "endpoint"
    EXECUTION_ENDED = "execution_ended"
    EXECUTION_OPEN = "execution_open"
    FEE = "fee"
    FILE = "file"
    FOREIGN_NONCE = "foreign_nonce"
    FOREIGN_PENDING = "foreign_pending"
    GOAL = "goal"
    HARD_PAUSE = "hard_pause"
    KEY = "key"
    KEY_SERVICE = "key_service"
    LAG = "lag"
    LIBRARY = "library"
    LOCK = "lock"
    METHOD = "method"
    MINT_NOT_FINAL = "mint_not_final"
    NONCE_USED = "nonce_used"
    NO_ANSWER = "no_answer"
    NO_LEGS = "no_legs"
    NOT_A_STORE = "not_a_store"
    NOT_JSON = "not_json"
    NOT_JUDGED = "not_judged"
    NOT_MINED = "not_mined"
    OLD_BLOCKS = "old_blocks"
    OPEN_TRANSACTION = "open_transaction"
    OPERATORS = "operators"
    ORDERS_CHANGED = "orders_changed"
    PACKAGE = "package"
    PAPER = "paper"
    PAUSE = "pause"
    POOL = "pool"
    QUORUM = "quorum"
    QUOTER = "quoter"
    QUOTES_DIFFER = "quotes_differ"
    RANGE = "range"
    RATE_LIMIT = "rate_limit"
    RECEIPT = "receipt"
    REFERENCE_PRICE = "reference_price"
    REORG = "reorg"
    ROUTE = "route"
    ROUTER_BALANCE = "router_balance"
    SCHEDULER = "scheduler"
    SCREEN = "token_screen"
    SIGNATURE = "signature"
    SIMULATION = "simulation"
    STORE = "store"
    STORE_OWNER = "store_owner"
    STORE_VERSION = "store_version"
    TIMEOUT = "timeout"
    TOKENS = "tokens"
    TRANSACTIONS_MANY = "transactions_many"
    TRANSACTIONS_MISSING = "transactions_missing"
    TWAP = "twap"
    UNKNOWN_IF_SENT = "unknown_if_sent"
    UNREACHABLE = "unreachable"
    VENUE = "venue"
    WEIGHTS = "weights"
    WORKER = "worker"
    WRAPPING = "wrapping"


class TrimtabError(Exception):
    """Base of every error that the agent raises on purpose. `remedy` is the operator's next step,
    `code` a stable name of the cause for programs (empty: the class is all that is known).
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", *, code: str = "") -> None:
        super().__init__(printable_text(message))
        self.message = printable_text(message)
        self.remedy = printable_text(remedy)
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class ConfigError(TrimtabError):
    """The config file or the command line is wrong: name of the field, its value, the remedy."""

    exit_code = EXIT_USAGE

    @property
    def field(self) -> str:
        """Config key or option that the message begins with, after the file if any; empty if it
        names none.
        """
        found = _FIELD.search(self.message)
        return found[1] if found else ""


class Refused(TrimtabError):
    """A guard refused; nothing was sent. Carries the verdicts with measurement and limit. Without a
    code of its own, `code` is the first guard that refused.
    """

    exit_code = EXIT_REFUSED

    def __init__(
        self,
        message: str,
        verdicts: Sequence[Verdict] = (),
        remedy: str = "",
        *,
        code: str = "",
    ) -> None:
        self.verdicts = tuple(verdicts)
        super().__init__(message, remedy, code=code or next(iter(self.guards), ""))

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the guards that refused, in their order."""
        return tuple(one.guard for one in self.verdicts if not one.passed)


class UnsendableTransaction(Refused):
    """The transaction itself is refused, by its legs or its token: it would revert, or it cannot be
    encoded.

    The cause is never its time, its nonce, its fee, the endpoints, or a stop of all sending.
    """


class Retryable(TrimtabError):
    """The network failed while reading; asking again later may succeed."""

    exit_code = EXIT_RETRYABLE


class OperatorNeeded(TrimtabError):
    """A state that only the operator can resolve: foreign nonce, wrong chain, corrupt store, second
    process.
    """

    exit_code = EXIT_OPERATOR


class Interrupted(TrimtabError):
    """Ctrl-C ended a command that moves no money."""

    exit_code = EXIT_INTERRUPTED
