"""portfolio.use_cash: the numeraire that the agent takes from the wallet. The rest is left alone:
it is reserved, so it counts in no total, weight or plan. Trades never change the rest, because what
the agent pays and receives is its own part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agent.model import CashAccount, CashMemory, CashState, ExpectedBalances, StepInput
from agent.policy.cash_flows import balance_changes
from agent.units import decimal_text


def reserve_unused_cash(
    step: StepInput, memory: CashMemory | None, balances: ExpectedBalances
) -> StepInput:
    """Return the step with the unused numeraire reserved, and its account in the history; unchanged
    without portfolio.use_cash.
    """
    portfolio = step.portfolio
    limit, token = portfolio.use_cash_raw, portfolio.numeraire.address
    if limit is None or memory is None:
        return step
    held = balance_changes.balances_of(step.snapshot).get(token)
    fresh = tuple(
        flow.delta_raw
        for flow in balance_changes.unexplained(step, balances)
        if flow.token == token
    )
    reserve = next(one.reserve_raw for one in portfolio.assets if one.token.address == token)
    account = memory.account
    if account is None or account.token != token:
        taken = min(limit, max(0, (held or 0) - reserve))
        account = CashAccount(
            token,
            limit,
            taken,
            max(0, (held or 0) - reserve - taken),
            memory.transfer,
            memory.intent,
            memory.external,
        )
        # an opening holds the whole balance: a transfer that is recorded later would count twice
        is_known = (
            held is not None
            and not fresh
            and balance_changes.is_comparable(step.snapshot, balances)
        )
    else:
        account = _with_limit(updated(account, memory), limit, held, reserve)
        is_known = True
    state = CashState(account, memory.account == account, is_known, memory.turn)
    unused = with_transfers(account, fresh).unused_raw if memory.account else account.unused_raw
    if held is not None:
        unused = min(unused, max(0, held - reserve))
    assets = tuple(
        replace(one, reserve_raw=one.reserve_raw + unused) if one.token.address == token else one
        for one in portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(portfolio, assets=assets),
        history=replace(step.history, cash=replace(state, unused_raw=unused)),
    )


def updated(account: CashAccount, memory: CashMemory) -> CashAccount:
    """Return the account with the changes of `memory`, oldest first: transfers, then payouts, which
    only make room for later deposits.
    """
    found = with_transfers(account, memory.changes)
    return replace(
        found,
        taken_raw=max(0, found.taken_raw - sum(memory.paid)),
        transfer=memory.transfer,
        intent=memory.intent,
        external=memory.external,
    )


def with_transfers(account: CashAccount, changes: Iterable[int]) -> CashAccount:
    """Return the account after transfers of the owner or of others, in signed base units.

    A deposit fills what the agent may still take and leaves the rest alone. A withdrawal comes from
    the unused part first.
    """
    taken, unused = account.taken_raw, account.unused_raw
    for delta in changes:
        if delta > 0:
            part = min(delta, max(0, account.limit_raw - taken))
            taken, unused = taken + part, unused + delta - part
        else:
            part = min(-delta, unused)
            taken, unused = max(0, taken + delta + part), unused - part
    return replace(account, taken_raw=taken, unused_raw=unused)


def _with_limit(account: CashAccount, limit: int, held: int | None, reserve: int) -> CashAccount:
    """Return the account under another portfolio.use_cash: a higher one takes from the unused part,
    a lower one gives back cash that is not invested.
    """
    if limit == account.limit_raw or held is None:
        return account
    if limit > account.limit_raw:
        part = min(account.unused_raw, max(0, limit - account.taken_raw))
    else:
        free = max(0, held - reserve - account.unused_raw)
        part = -min(free, max(0, account.taken_raw - limit))
    return replace(
        account,
        limit_raw=limit,
        taken_raw=account.taken_raw + part,
        unused_raw=account.unused_raw - part,
    )


def unused_text(step: StepInput) -> str:
    """Return the amount left alone and its reason; empty if there is none."""
    state, numeraire = step.history.cash, step.portfolio.numeraire
    if state is None or not state.unused_raw:
        return ""
    amount = decimal_text(state.unused_raw, numeraire.decimals)
    return f"{amount} {numeraire.label} {balance_changes.ABOVE_USE_CASH}"
