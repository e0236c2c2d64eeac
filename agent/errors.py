"""Error families by the operator's action, each with its exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from traceback import walk_tb

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_REFUSED = 10
EXIT_RETRYABLE = 11
EXIT_OPERATOR = 12
EXIT_HUNG = 13
"""The watchdog ended a hung run; restart it."""
EXIT_DIFFERS = 14
"""A replay decided differently."""
EXIT_UNHEALTHY = 15
"""`trimtab health` found a run that is unhealthy, or not ready."""
EXIT_INTERRUPTED = 130
"""Ctrl-C in a command that uses no chain."""


OUTCOME_EXIT_CODES = {
    "refused": EXIT_REFUSED,
    "halt": EXIT_REFUSED,
    "declined": EXIT_REFUSED,
    "failed": EXIT_RETRYABLE,
    "unfinished": EXIT_RETRYABLE,
    "unknown": EXIT_RETRYABLE,
}
"""Exit codes by outcome of a step or request; all other outcomes are 0, such as hold, or waiting: a
withdrawal is paid, and only its confirmations are missing. "failed" means sent without success,
"unknown" that the chain did not answer.
"""


MAX_WORD_LENGTH = 300
MAX_TEXT_LENGTH = 8_000
"""Longest displayed word and text, because an error may quote anything from a file or a node."""


_FIELD_END = r"(?=(?: \S+|, line \d+)?: )"
_OPTION = r"--[a-z][a-z0-9-]*(?=(?:(?: \S+){0,2}|, line \d+): )"
"""An option, perhaps with one of its names, and a symbol: --market decimals WBTC."""
_KEY_FIELD = re.compile(rf"(?:^|: )({_OPTION}|[A-Za-z_]\w*(?:\.[\w-]+)+{_FIELD_END})")
_WORD_FIELD = re.compile(rf"(?:^|: )([A-Za-z_]\w*){_FIELD_END}")


def printable_text(text: str) -> str:
    """Return the text with terminal controls and direction marks escaped and long words cut
    (T17).
    """
    escaped_text = text
    if not text.isprintable():
        escaped_text = "".join(
            char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
            for char in text
        )
    if len(escaped_text) > MAX_WORD_LENGTH:
        escaped_text = " ".join(
            word if len(word) <= MAX_WORD_LENGTH else f"{word[: MAX_WORD_LENGTH - 1]}…"
            for word in escaped_text.split(" ")
        )
    return (
        escaped_text
        if len(escaped_text) <= MAX_TEXT_LENGTH
        else f"{escaped_text[: MAX_TEXT_LENGTH - 1]}…"
    )


class ErrorCode(StrEnum):
    """Stable error causes for programs, used where no guard refused; messages are for people."""

    ACCESS = "access"
    AGENT_KEY = "agent_key"
    ALLOWANCE = "allowance"
    AMOUNT = "amount"
    ANSWER = "answer"
    BALANCE = "balance"
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
    EXISTS = "exists"
    FEE = "fee"
    FILE = "file"
    FLOW_CONFIRMED = "flow_confirmed"
    FOLDER = "folder"
    FOREIGN_NONCE = "foreign_nonce"
    FOREIGN_PENDING = "foreign_pending"
    GOAL = "goal"
    HARD_PAUSE = "hard_pause"
    IN_USE = "in_use"
    KEY = "key"
    KEY_SERVICE = "key_service"
    LAG = "lag"
    LIBRARY = "library"
    LOCK = "lock"
    METHOD = "method"
    MINT_NOT_FINAL = "mint_not_final"
    NONCE_USED = "nonce_used"
    NOT_A_STORE = "not_a_store"
    NOT_JSON = "not_json"
    NOT_JUDGED = "not_judged"
    NOT_MINED = "not_mined"
    NOT_OPEN = "not_open"
    NO_ANSWER = "no_answer"
    NO_LEGS = "no_legs"
    OLD_BLOCKS = "old_blocks"
    OPEN_TRANSACTION = "open_transaction"
    OPERATORS = "operators"
    ORDERS_CHANGED = "orders_changed"
    PACKAGE = "package"
    PAPER = "paper"
    PAPER_STARTED = "paper_started"
    PART_NOT_DUE = "part_not_due"
    PAUSE = "pause"
    POOL = "pool"
    POSITION = "position"
    PROPOSAL_OPEN = "proposal_open"
    QUORUM = "quorum"
    QUOTER = "quoter"
    QUOTES_DIFFER = "quotes_differ"
    RANGE = "range"
    RATE_LIMIT = "rate_limit"
    RECEIPT = "receipt"
    REFERENCE_PRICE = "reference_price"
    REORG = "reorg"
    REPEATED_PAYMENT = "repeated_payment"
    ROUTE = "route"
    ROUTER_BALANCE = "router_balance"
    SAME_FILE = "same_file"
    SCHEDULER = "scheduler"
    SCREEN = "token_screen"
    SIGNATURE = "signature"
    SIMULATION = "simulation"
    STOP_OPEN = "stop_open"
    STORE = "store"
    STORE_OWNER = "store_owner"
    STORE_VERSION = "store_version"
    TIMEOUT = "timeout"
    TOKENS = "tokens"
    TRANSACTIONS_MANY = "transactions_many"
    TRANSACTIONS_MISSING = "transactions_missing"
    TWAP = "twap"
    UNKNOWN = "unknown"
    UNKNOWN_IF_SENT = "unknown_if_sent"
    UNREACHABLE = "unreachable"
    VENUE = "venue"
    WALLET_SERVED = "wallet_served"
    WEIGHTS = "weights"
    WITHDRAWAL_OPEN = "withdrawal_open"
    WORKER = "worker"
    WRAPPING = "wrapping"


class TrimtabError(Exception):
    """Base of all errors that the agent raises on purpose. `remedy` is the operator's next step,
    `code` a stable name of the cause for programs (empty: no name), `title` stands before the
    message (empty: that of the exit code).
    """

    exit_code = 1
    title = ""

    def __init__(self, message: str, remedy: str = "", *, code: str = "") -> None:
        super().__init__(printable_text(message))
        self.message = printable_text(message)
        self.remedy = printable_text(remedy)
        self.code = code

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


def internal_error(error: Exception, remedy: str = "this is a bug; report it") -> TrimtabError:
    """Return a defect as an error by the file and line that raised it; its text may have a
    secret.
    """
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        place = f" at {frame.f_code.co_filename.rpartition('/')[2]}:{line}"
    return TrimtabError(f"internal error{place}", remedy)


def kind_words(cls: type) -> str:
    """Return the name of a class as words.

    >>> kind_words(TrimtabError)
    'trimtab error'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cls.__name__).lower()


class ConfigError(TrimtabError):
    """Invalid config file or command line. The message has the field, its value and the remedy."""

    exit_code = EXIT_USAGE

    @property
    def field(self) -> str:
        """Config key or option at the start of the message, after the file name if any; empty if
        there is none.
        """
        match = _KEY_FIELD.search(self.message) or _WORD_FIELD.search(self.message)
        return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of one guard: measured value and limit. `guard` is its name, which is the key of
    its limit if it has one in the config. `is_known` is false if data for the measure are missing;
    `measured_text` then names them.
    """

    guard: str
    measured_text: str
    limit: str
    passed: bool
    is_known: bool = True


class Refused(TrimtabError):
    """A guard or another check refused, and nothing was sent. `verdicts` have measured values and
    limits; `code` defaults to the first guard that refused.

    >>> impact = Verdict("price_impact", "130 bps", "100 bps", passed=False)
    >>> refusal = Refused("the pools are too thin", [impact], "trade less")
    >>> print(refusal)
    the pools are too thin (trade less)
    >>> refusal.code, refusal.exit_code
    ('price_impact', 10)
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
        """Names of the refusing guards, in the order of the verdicts."""
        return tuple(verdict.guard for verdict in self.verdicts if not verdict.passed)


class UnsendableTransaction(Refused):
    """The transaction would revert or cannot be encoded, because of its legs or tokens; never
    because of time, nonce, fee, endpoints or the kill switch.
    """


class Retryable(TrimtabError):
    """An endpoint, a service or the store failed, or disagreed with another; a later attempt may
    succeed.
    """

    exit_code = EXIT_RETRYABLE


class NotAccepted(Retryable):
    """Nodes refused a transaction whose bytes may have been sent, so that it stays open: the next
    reconciliation resends or cancels it. `verdicts` are those of the refusal.
    """

    def __init__(self, subject: str, refusal: Refused) -> None:
        self.verdicts = refusal.verdicts
        remedies = [
            refusal.remedy,
            "run the same command again: it first settles this transaction and sends no second",
        ]
        super().__init__(
            f"{subject} stays open: {refusal.message}",
            "; then ".join(filter(None, remedies)),
            code=refusal.code,
        )


class OperatorNeeded(TrimtabError):
    """The operator has to resolve a state: foreign nonce, wrong chain, corrupt store, second
    process.
    """

    exit_code = EXIT_OPERATOR


class PassingFault(OperatorNeeded):
    """A fault outside this process, such as an endpoint's web page or a full disk. The operator has
    to look into it at the start of a run and in other commands; a run that has had a good cycle
    tries again, because it may pass.
    """


READ_FAILURES = (Refused, Retryable, PassingFault)
"""What a read of the chain raises whose failure is not the answer: operators that disagree, an
endpoint that does not answer, a fault that may pass.
"""


class Interrupted(TrimtabError):
    """Ctrl-C ended a command that uses no chain."""

    exit_code = EXIT_INTERRUPTED


@contextmanager
def require_analysis_package(alternative: str = "") -> Iterator[None]:
    """Raise Refused if a package is missing inside the context; a missing module of our own stays a
    defect. The remedy is to install the extra `analysis`, followed by the text `alternative`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        raise Refused(
            f"{error.name} is not installed",
            remedy=f"pip install 'trimtab[analysis]'{alternative}",
            code=ErrorCode.PACKAGE,
        ) from None
