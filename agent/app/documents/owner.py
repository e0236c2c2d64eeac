"""Documents of owner requests: invest, withdraw, edit, stop, revoke, rehearse, pause --hard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    Address,
    Amount,
    ConvertedBy,
    Hash,
    Money,
    Number,
    Of,
    Raw,
    TokenAddress,
    TokenSymbol,
    fill,
    one_of,
)
from agent.app.documents.plans import (
    OutcomeDocument,
    PlanDocument,
    RebalanceDocument,
    SentDocument,
    VerdictDocument,
    plan,
    rebalance,
    transaction,
)
from agent.app.documents.steps import TRANSFERS, Block, ProgressDocument, TransferDocument
from agent.app.withdrawal_run import format_parts
from agent.policy.cash_flows.cash_limit import unused_text

if TYPE_CHECKING:
    from agent.app import Agent, HardPauseReport
    from agent.app.money.deposits import InvestmentReport
    from agent.app.money.rehearsal import Rehearsal
    from agent.app.settings.editing import EditReport, RemovalReport

HANDED_OVER = (
    "a running trimtab run cancels and revokes them next; without a run, repeat this once the"
    " wallet is free"
)
"""Advice while another process holds the wallet: a run, or a command that ends soon."""

LeftAlone = Annotated[str, ConvertedBy(lambda step, _: unused_text(step)), Of("step_input")]
"""The numeraire above portfolio.use_cash; empty without that limit."""
PartsDocument = TypedDict(
    "PartsDocument", {"count": int, "done": int, "next_s": int, "until_s": int, "words": str}
)
"""Progress of a withdrawal in parts; times in chain seconds."""
WITH_WORDS = ConvertedBy(lambda parts, _: fill(PartsDocument, parts, words=format_parts(parts)))
PaymentDocument = TypedDict("PaymentDocument", {
    "symbol": TokenSymbol, "address": TokenAddress, "raw": Raw, "amount": Amount, "native": bool,
})  # fmt: skip
WithdrawalDocument = TypedDict("WithdrawalDocument", {
    "state": str, "reason": str, "request": int | None, "to": Address | None,
    "payments": list[PaymentDocument], "sale": OutcomeDocument | None,
    "verdicts": list[VerdictDocument], "remedies": list[str], "transactions": list[SentDocument],
    "left_alone": LeftAlone, "block": Block,
})  # fmt: skip
"""A withdrawal; `sale` precedes the payments, None if the balance suffices."""
RequestDocument = TypedDict("RequestDocument", {
    "number": Annotated[int, Of("id")], "state": str, "to": Address | None,
    "payments": list[PaymentDocument], "asked_s": int,
    "parts": Annotated[PartsDocument, WITH_WORDS] | None,
})  # fmt: skip


InvestmentDocument = TypedDict("InvestmentDocument", {
    "wallet": Address, "chain_id": Annotated[int, Of("step_input.snapshot.head.chain_id")],
    "came": Annotated[list[TransferDocument], TRANSFERS, Of("step_input", "came")],
    "left": Annotated[list[TransferDocument], TRANSFERS, Of("step_input", "left")],
    "told": bool, "outcome": str,
    "purchase": Annotated[ProgressDocument | None, Of("rest")], "reason": str,
    "plan": RebalanceDocument | PlanDocument | None, "transactions": list[SentDocument],
})  # fmt: skip


def investment_document(found: InvestmentReport, agent: Agent, *, sent: bool) -> InvestmentDocument:
    """Document of deposits and their investment."""
    outcome = found.outcome
    if outcome is None:
        ended, document = "nothing came", None
    else:
        ended = "part" if sent and found.rest is not None else outcome.kind.value
        document = rebalance(outcome, agent.realised(outcome)) if sent else plan(outcome)
    return fill(
        InvestmentDocument,
        found,
        agent.portfolio,
        outcome=ended,
        reason="" if outcome is None else outcome.reason,
        plan=document,
        transactions=[] if outcome is None else [transaction(one) for one in outcome.transactions],
    )


AllowanceDocument = TypedDict("AllowanceDocument", {
    "token": Address, "symbol": Annotated[str, Of("label")], "spender": Address, "holder": str,
})  # fmt: skip


class OpenAllowanceDocument(AllowanceDocument):
    """An allowance with its amount; `raw` is None if the token returns no valid amount."""

    raw: Raw | None


RevocationDocument = TypedDict("RevocationDocument", {
    "state": str, "reason": str, "allowances": Annotated[list[OpenAllowanceDocument], Of("found")],
    "transactions": list[SentDocument],
})  # fmt: skip


class ExposedDocument(TypedDict):
    cancel: Annotated[list[SentDocument], Of("waiting")]
    revoke: Annotated[list[AllowanceDocument], Of("allowed")]


PauseDocument = TypedDict("PauseDocument", {
    "paused": bool, "hard": bool, "reason": str, "store": NotRequired[str],
})  # fmt: skip
"""The kill switch. If the store could not be opened, `store` has the reason, and the pause file
beside it is used instead.
"""
HardPauseDocument = TypedDict("HardPauseDocument", {
    "paused": bool, "hard": bool, "reason": str, "outcome": str, "told": str,
    "cancel": list[SentDocument], "revoke": list[AllowanceDocument],
    "transactions": list[SentDocument],
})  # fmt: skip
"""A hard pause; `outcome`: planned, declined, clear (nothing left), done, failed, or handed over to
a running agent."""


def hard_pause_document(halted: HardPauseReport, send: bool) -> HardPauseDocument:
    """Document of a hard pause."""
    found = fill(ExposedDocument, halted.found)
    clear = not found["cancel"] and not found["revoke"]
    if halted.outcome is not None:
        outcome, message = halted.outcome.kind.value.replace("halt", "clear"), halted.outcome.reason
    elif halted.held and not clear:
        outcome, message = "handed over", f"{halted.held}; {HANDED_OVER}"
    elif clear:
        outcome, message = "clear", "no pending transactions, no open allowances"
    elif send:
        outcome, message = "declined", "not confirmed, but paused"
    else:
        outcome, message = "planned", "paused; to cancel and revoke: trimtab pause --hard --send"
    sent = () if halted.outcome is None else halted.outcome.transactions
    transactions = [transaction(intent) for intent in sent]
    return fill(
        HardPauseDocument,
        halted,
        paused=True,
        outcome=outcome,
        told=message,
        transactions=transactions,
        **found,
    )


FIRST_PLAN = ConvertedBy(lambda outcomes, _: plan(outcomes[0]) if outcomes else None)
ShutdownDocument = TypedDict("ShutdownDocument", {
    "state": str, "reason": str, "to_stable": bool, "to": Address | None,
    "cancel": Annotated[list[SentDocument], Of("waiting")],
    "revoke": Annotated[list[AllowanceDocument], Of("allowed")],
    "sale": Annotated[PlanDocument | None, FIRST_PLAN, Of("sales")], "sales": list[OutcomeDocument],
    "payments": list[PaymentDocument], "verdicts": list[VerdictDocument], "remedies": list[str],
    "transactions": list[SentDocument], "left": list[str], "left_alone": LeftAlone, "block": Block,
})  # fmt: skip
"""A shutdown; `sale` is the first of `sales`, `left` are holdings that could not be sold or
paid."""


class RehearsalLegDocument(TypedDict):
    token_in: Annotated[str, Of("sold.label")]
    token_out: Annotated[str, Of("bought.label")]
    amount_in_raw: Annotated[Raw, Of("in_raw")]
    predicted_raw: Raw
    realised_raw: Annotated[Raw, Of("got_raw")]
    slippage_bps: Number
    gas_predicted: int
    gas_used: int
    gas_value: Money


RehearsalDocument = TypedDict("RehearsalDocument", {
    "state": str, "verdict": str, "numeraire": str, "plan": PlanDocument,
    "ways": list[RehearsalLegDocument], "cost": Money,
    "predicted_cost": Annotated[Money, Of("predicted")], "transactions": list[SentDocument],
})  # fmt: skip


def rehearsal_document(found: Rehearsal, agent: Agent) -> RehearsalDocument:
    """Document of a test trade."""
    sent = [transaction(one) for outcome in found.outcomes for one in outcome.transactions]
    first, unit = plan(found.outcomes[0]), agent.portfolio.numeraire.label
    return fill(
        RehearsalDocument, found, agent.portfolio, numeraire=unit, plan=first, transactions=sent
    )


ContractDocument = TypedDict("ContractDocument", {
    "what": str, "address": Address, "code_hash": Hash,
    "state": Annotated[str, one_of("new", "unchanged", "CHANGED")], "liquidity": NotRequired[str],
})  # fmt: skip
"""A contract with its code hash; in an edit also with the liquidity, empty unless it is a pool."""


class EditDocument(TypedDict):
    """An edit of the config; `taken_in` has lines about new tokens, `rounds` is the number of
    rebalances within limits.turnover.
    """

    state: str
    changes: list[str]
    by_hand: list[str]
    transition: OutcomeDocument | None
    first_round: Annotated[OutcomeDocument | None, Of("first")]
    rounds: int
    warnings: list[str]
    next: Annotated[list[str], Of("following")]
    taken_in: Annotated[list[str], Of("new_tokens.told")]
    contracts: Annotated[list[ContractDocument], Of("new_tokens.rows")]
    backup: str | None
    reason: str
    transactions: list[SentDocument]


def edit_document(found: EditReport) -> EditDocument:
    """Document of an edit."""
    return fill(EditDocument, found, reason="", transactions=[])


def removal_document(found: RemovalReport) -> EditDocument:
    """Document of a removal, with its transactions."""
    sent = [transaction(one) for one in found.transactions]
    return {
        **edit_document(found.edited),
        "state": found.state,
        "reason": found.reason,
        "transactions": sent,
    }


WithdrawalsDocument = TypedDict("WithdrawalsDocument", {"withdrawals": list[RequestDocument]})
