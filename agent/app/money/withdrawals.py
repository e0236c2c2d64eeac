"""Withdrawals from a running bot: sell assets to raise a shortfall, reserve the amount, and pay it
to a confirmed address exactly once.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent import wiring
from agent.app import withdrawal_run
from agent.app.agent import Agent
from agent.app.cycles import Progress, ignore_progress, never_confirm
from agent.app.withdrawal_run import (
    Confirm,
    WithdrawalReport,
    WithdrawalRun,
    withdrawable_step,
)
from agent.config.fields import parse_address
from agent.errors import ConfigError, ErrorCode, Refused, Retryable
from agent.model import IntentState, OwnerRequest, Payment, RequestKind, RequestState, StepInput
from agent.policy.cash_flows import transfers
from agent.units import parse_raw

# --- Payments of a withdrawal, parsed from input: one amount of one asset, or an equal share of
# all.


def single_payment(agent: Agent, step: StepInput, amount: str, name: str | None) -> Payment:
    """Return one payment of one asset. Raises ConfigError for an unknown asset, Refused if the
    amount exceeds the value of all free holdings.
    """
    token = agent.portfolio.numeraire if name is None else agent.token(name, "--in")
    asset = next((one for one in step.portfolio.assets if one.token.address == token.address), None)
    if asset is None:
        raise ConfigError(
            f"--in: {token.label} is not an asset of the portfolio",
            "trimtab status lists the assets",
        )
    raw = _above_zero(parse_raw(amount, token.decimals, "AMOUNT"))
    free, price = transfers.free_raw(step), transfers.token_price(step, token.address)
    if price is None:
        raise Refused(f"{token.label} has no reference price", remedy="give the asset a feed")
    prices = {one: transfers.token_price(step, one) or Fraction(0) for one in free}
    there = sum(
        (count * prices[one] for one, count in free.items() if one != token.address), Fraction(0)
    )
    if (lacking := (raw - free[token.address]) * price) > there:
        raise transfers.insufficient_balance(step, lacking, there)
    return Payment(token.address, raw, asset.native)


def pro_rata_payments(agent: Agent, step: StepInput, amount: str) -> tuple[Payment, ...]:
    """Return payments of the same share of every asset, `amount` whole numeraire coins in total."""
    value = Fraction(_above_zero(parse_raw(amount, agent.portfolio.numeraire.decimals, "AMOUNT")))
    native = {asset.token.address for asset in step.portfolio.assets if asset.native}
    return tuple(
        Payment(token, raw, token in native)
        for token, raw in transfers.proportional_amounts(step, value).items()
    )


def _above_zero(raw: int) -> int:
    if raw == 0:
        raise ConfigError("AMOUNT must be above 0", "for example trimtab withdraw 500")
    return raw


UNMINED_STATES = (IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST)
"""States in which a payment may still be mined. A planned one may have been shown to an external
signer.
"""


def withdraw(  # noqa: PLR0913
    agent: Agent,
    amount: str,
    token: str | None = None,
    *,
    pro_rata: bool = False,
    to: str | None = None,
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> WithdrawalReport:
    """Pay `amount` whole coins of one token (default the numeraire), or with `pro_rata` the same
    share of every asset, together worth `amount`. A shortfall is raised by selling the most overweight assets first. Without `to`
    the amount stays in the wallet as a reserve until paid or released. Raises Refused if the
    balance is smaller, ConfigError for invalid input.
    """
    if pro_rata and token is not None:
        raise ConfigError("--in and --pro-rata cannot be combined", "use one of them")
    address = None if to is None else parse_address(to, "--to")

    def asking(step: StepInput) -> WithdrawalRun:
        if pro_rata:
            payments = pro_rata_payments(agent, step, amount)
        else:
            payments = (single_payment(agent, step, amount, token),)
        withdrawal_run.require_alone(step, (one.token for one in payments))
        return WithdrawalRun(agent.context, payments, address)

    step = transfers.reserve_pending_deposits(agent.step_input())
    if not send:
        return asking(step).report(step)
    asking(step)  # an impossible withdrawal is refused before waiting for the wallet
    with wiring.open_actors(
        agent.context, lambda outcome: asked.confirmed(outcome, confirm), progress
    ) as actors:
        actors.executor.reconcile()
        asked = asking(withdrawable_step(agent.context))
        return asked.execute(actors, confirm)


def resume(
    agent: Agent,
    number: int,
    *,
    to: str | None = None,
    send: bool = False,
    confirm: Confirm,
    progress: Progress = ignore_progress,
) -> WithdrawalReport:
    """Resume an open withdrawal: raise its shortfall, pay its unpaid part; `to` is the address for
    a reserved withdrawal.
    """

    def asking(step: StepInput) -> WithdrawalRun:
        request = _open_request(agent, number)
        if to is not None:
            if request.to is not None and request.to != parse_address(to, "--to"):
                raise ConfigError(
                    f"--to: withdrawal {number} goes to {request.to}",
                    "release it and start a new withdrawal",
                )
            request = replace(request, to=parse_address(to, "--to"))
        return WithdrawalRun(agent.context, _unpaid(step, number), request.to, request)

    step = transfers.reserve_pending_deposits(agent.step_input())
    asked = asking(step)
    if not send:
        return asked.report(step)
    with wiring.open_actors(
        agent.context, lambda outcome: asked.confirmed(outcome, confirm), progress
    ) as actors:
        actors.executor.reconcile()
        step = withdrawable_step(agent.context)
        asked = asking(step)  # another process may have paid or released it
        withdrawal_run.require_due(asked.request, step)
        return asked.execute(actors, confirm)


def release(agent: Agent, number: int, progress: Progress = ignore_progress) -> OwnerRequest:
    """Release a withdrawal: its unpaid part returns to the portfolio. Raises Retryable while a
    payment is pending, LockHeld while another process holds the wallet's lock, since it may be
    paying.
    """
    _open_request(agent, number)
    store = agent.context.store
    with wiring.open_actors(agent.context, never_confirm, progress, signs=False):
        request = _open_request(agent, number)
        under_way = [
            intent for intent, _ in store.requests.paid(number) if intent.state in UNMINED_STATES
        ]
        if under_way:
            raise Retryable(
                f'"{under_way[0].note}" is pending',
                "trimtab reconcile, then release the unpaid part",
            )
        store.requests.end(number, RequestState.RELEASED, agent.context.clock.now_s())
    return replace(request, state=RequestState.RELEASED)


def _unpaid(step: StepInput, number: int) -> tuple[Payment, ...]:
    return tuple(claim.payment for claim in step.history.claims if claim.request == number)


def _open_request(agent: Agent, number: int) -> OwnerRequest:
    for request in agent.context.store.requests.newest(1_000, open_only=True):
        if request.id == number and request.kind is RequestKind.WITHDRAW:
            return request
    raise ConfigError(
        f"withdrawal {number} is not open",
        "trimtab withdraw lists open withdrawals",
        code=ErrorCode.NOT_OPEN,
    )
