"""Withdrawals from a running bot: sell what is needed, set it aside, and pay a confirmed address exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import engine, wiring
from agent.app import withdrawal_parts
from agent.app.agent import Agent, Progress, ignore_progress, never_confirm
from agent.config.fields import parse_address
from agent.errors import ConfigError, Refused, Retryable
from agent.execution.approvals import current_step_input, pay
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.guards import portfolio
from agent.model import Intent, IntentState, OwnerRequest, Payment, Payout, PendingPayment, RequestKind, RequestState, StepInput, Verdict
from agent.model.asked import RaiseForWithdrawal, Unwrap
from agent.planning import proposals
from agent.policy import native_coin
from agent.policy.cash_flows import withdrawals
from agent.units import NATIVE, parse_raw

# --- Payments of a withdrawal, parsed from the owner's input: one amount of one asset, or the same share of all.


def single_payment(agent: Agent, step: StepInput, amount: str, name: str | None) -> Payment:
    """One payment of one asset. Raises ConfigError for an unknown asset, Refused if the whole portfolio is worth less."""
    token = agent.portfolio.numeraire if name is None else agent.token(name, "--in")
    asset = next((one for one in step.portfolio.assets if one.token.address == token.address), None)
    if asset is None:
        raise ConfigError(f"--in: {token.label} is not an asset of the portfolio", "trimtab status lists the assets")
    raw = _above_zero(parse_raw(amount, token.decimals, "AMOUNT"))
    free, price = withdrawals.free_raw(step), withdrawals.token_price(step, token.address)
    if price is None:
        raise Refused(f"{token.label} has no reference price", remedy="give the asset a feed")
    prices = {one: withdrawals.token_price(step, one) or Fraction(0) for one in free}
    there = sum((count * prices[one] for one, count in free.items() if one != token.address), Fraction(0))
    if (lacking := (raw - free[token.address]) * price) > there:
        raise withdrawals.insufficient_balance(step, lacking, there)
    return Payment(token.address, raw, asset.native)


def pro_rata_payments(agent: Agent, step: StepInput, amount: str) -> tuple[Payment, ...]:
    """The same share of every asset, `amount` whole numeraire coins in all."""
    value = Fraction(_above_zero(parse_raw(amount, agent.portfolio.numeraire.decimals, "AMOUNT")))
    native = {asset.token.address for asset in step.portfolio.assets if asset.native}
    return tuple(Payment(token, raw, token in native) for token, raw in withdrawals.proportional_amounts(step, value).items())


def _above_zero(raw: int) -> int:
    if raw == 0:
        raise ConfigError("AMOUNT must be above 0", "for example trimtab withdraw 500")
    return raw


MAX_SALES = 3
"""Plans in a row for one withdrawal: the first sells a little more than needed, so that a second is rare."""


UNMINED_STATES = (IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST)
"""States in which a payment may still be mined; a planned one may have been shown to an external signer."""


@dataclass(frozen=True, slots=True)
class WithdrawalReport:
    """State of a withdrawal: its payments, the sale that comes first (None: enough is there), its verdicts and transactions.

    `state` is planned, declined, refused, reserved (set aside, not paid), part (more has to be raised), paid, waiting (for confirmations)
    or failed. `request` is its number once it was confirmed.
    """

    step_input: StepInput
    payments: tuple[Payment, ...]
    to: str | None
    sale: StepOutcome | None
    verdicts: tuple[Verdict, ...]
    state: str
    reason: str
    request: int | None = None
    transactions: tuple[Intent, ...] = ()

    @property
    def refused(self) -> bool:
        """True if a limit refuses already."""
        sold = self.sale is None or self.sale.kind is OutcomeKind.PLANNED
        return not sold or any(not verdict.passed for verdict in self.verdicts)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Remedies for each limit that refuses."""
        return portfolio.payout_remedies(self.verdicts)


Confirm = Callable[[WithdrawalReport], bool]


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
    """Pay `amount` whole coins of one token (default the numeraire), or with `pro_rata` that value of every asset.

    A shortfall is raised by selling the most overweight assets first. Without `to` it stays in the wallet, set aside from the portfolio,
    until it is paid or released. Raises Refused if there is less, ConfigError for invalid input.
    """
    if pro_rata and token is not None:
        raise ConfigError("--in and --pro-rata cannot be combined", "use one of them")
    address = None if to is None else parse_address(to, "--to")

    def asking(step: StepInput) -> WithdrawalRun:
        payments = pro_rata_payments(agent, step, amount) if pro_rata else (single_payment(agent, step, amount, token),)
        withdrawal_parts.require_alone(step, (one.token for one in payments))
        return WithdrawalRun(agent, payments, address)

    step = withdrawals.reserve_pending_deposits(agent.step_input())
    if not send:
        return asking(step).looked(step)
    asking(step)  # an impossible withdrawal is refused before waiting for the wallet
    with wiring.open_actors(agent.desk, lambda outcome: asked.confirmed(outcome, confirm), progress) as actors:
        actors.executor.reconcile()
        asked = asking(_withdrawable_step(agent))
        return asked.execute(actors, confirm)


def resume(
    agent: Agent, number: int, *, to: str | None = None, send: bool = False, confirm: Confirm, progress: Progress = ignore_progress
) -> WithdrawalReport:
    """Resume an open withdrawal: raise its shortfall, pay its unpaid part; with `to` one that was only set aside."""

    def asking(step: StepInput) -> WithdrawalRun:
        request = _open_request(agent, number)
        if to is not None:
            if request.to is not None and request.to != parse_address(to, "--to"):
                raise ConfigError(f"--to: withdrawal {number} goes to {request.to}", "release it and start a new withdrawal")
            request = replace(request, to=parse_address(to, "--to"))
        return WithdrawalRun(agent, _unpaid(step, number), request.to, request)

    step = withdrawals.reserve_pending_deposits(agent.step_input())
    asked = asking(step)
    if not send:
        return asked.looked(step)
    with wiring.open_actors(agent.desk, lambda outcome: asked.confirmed(outcome, confirm), progress) as actors:
        actors.executor.reconcile()
        step = _withdrawable_step(agent)
        asked = asking(step)  # another process may have paid or released it meanwhile
        withdrawal_parts.require_due(asked.request, step)
        return asked.execute(actors, confirm)


def release(agent: Agent, number: int, progress: Progress = ignore_progress) -> OwnerRequest:
    """Release a withdrawal: its unpaid part returns to the portfolio.

    Raises Retryable while a payment of it is in flight, LockHeld while another process acts for the wallet: it may be paying.
    """
    _open_request(agent, number)
    store = agent.desk.store
    with wiring.open_actors(agent.desk, never_confirm, progress, signs=False):
        request = _open_request(agent, number)
        under_way = [intent for intent, _ in store.paid(number) if intent.state in UNMINED_STATES]
        if under_way:
            raise Retryable(f"«{under_way[0].note}» is on its way", "trimtab reconcile, then release what was not paid")
        store.end_request(number, RequestState.RELEASED, agent.desk.clock.now_s())
    return replace(request, state=RequestState.RELEASED)


def _withdrawable_step(agent: Agent) -> StepInput:
    """The newest step input, without unexplained deposits, which cannot be withdrawn."""
    return withdrawals.reserve_pending_deposits(current_step_input(agent.desk.readers, agent.desk.store))


def _unpaid(step: StepInput, number: int) -> tuple[Payment, ...]:
    return tuple(claim.payment for claim in step.history.claims if claim.request == number)


def _open_request(agent: Agent, number: int) -> OwnerRequest:
    for request in agent.desk.store.requests(1_000, open_only=True):
        if request.id == number and request.kind is RequestKind.WITHDRAW:
            return request
    raise ConfigError(f"withdrawal {number} is not open", "trimtab withdraw lists open withdrawals")


class WithdrawalRun:
    """One withdrawal from evaluation and confirmation to sale and payments."""

    def __init__(
        self, agent: Agent, payments: tuple[Payment, ...], to: str | None, request: OwnerRequest | None = None, sure: bool = False
    ) -> None:
        self._agent, self._desk = agent, agent.desk
        self._payments, self._to, self.request = payments, to, request
        self._of_before = request is not None
        self._sure = sure
        self._sent: list[Intent] = []

    def looked(self, step: StepInput, sale: StepOutcome | None = None, state: str = "", reason: str = "") -> WithdrawalReport:
        """Report of the withdrawal at this step, with the sale that it needs."""
        step = self._claimed(step)
        short = self._short(step)
        if sale is None and short is not None:
            sale = engine.evaluate(self._withdrawal_readers(), proposals.raise_money(short))
        verdicts = () if state else self._verdicts(step)
        found = WithdrawalReport(
            step, self._payments, self._to, sale, verdicts, state or "planned", reason, self._number, tuple(self._sent)
        )
        if not state and found.refused:
            message = next((f"{v.guard}: {v.measured}, limit {v.limit}" for v in verdicts if not v.passed), "")
            found = replace(found, state="refused", reason=message or (sale.reason if sale is not None else ""))
        return found

    def confirmed(self, outcome: StepOutcome, confirm: Confirm) -> bool:
        """The owner's answer to a sale; the confirmation, and the sale of a part, are recorded before anything is sent."""
        if not self._sure:
            if outcome.kind is not OutcomeKind.PLANNED or not confirm(self.looked(outcome.step_input, outcome)):
                return False
            self._write(outcome.step_input)
        if self.request is not None and (short := self._short(outcome.step_input)) is not None:
            withdrawal_parts.begun(self._desk.store, self.request, outcome, short)
        return True

    def execute(self, actors: StepActors, confirm: Confirm) -> WithdrawalReport:
        """Sell and pay; return the report."""
        step = self._claimed(_withdrawable_step(self._agent))
        portfolio.require_payout_allowed(self._verdicts(step))
        sale: StepOutcome | None = None
        for _ in range(MAX_SALES):
            short = self._short(step)
            if short is None:
                break
            sale = engine.run_step(self._withdrawal_readers(), RaiseForWithdrawal(short), self._desk.store, actors)
            self._sent += sale.transactions
            if sale.kind is not OutcomeKind.DONE:
                return self._not_sold(step, sale)
            step = self._claimed(_withdrawable_step(self._agent))
            if self.request is not None and (message := withdrawal_parts.record_part(self._desk.store, self.request, sale, step, short)):
                return self.looked(step, sale, "part", message)
        if not self._sure:
            if not confirm(self.looked(step)):
                return self.looked(step, state="declined", reason="not confirmed; nothing was sent")
            self._write(step)
        return self._pay(actors, sale)

    def _pay(self, actors: StepActors, sale: StepOutcome | None) -> WithdrawalReport:
        number = self._number or 0
        if self._to is None:
            self._desk.store.record_parts_raised(number, None)
            step = _withdrawable_step(self._agent)
            message = f"set aside as withdrawal {number}; to pay it: trimtab withdraw --resume {number} --to ADDRESS"
            return self.looked(step, sale, "reserved", message)
        while (claim := self._next()) is not None:
            if claim.payment.native and (missing := self._to_unwrap(claim)) > 0:
                done = engine.run_step(self._desk.readers, Unwrap(missing), self._desk.store, replace(actors, confirm=lambda _: True))
                self._sent += done.transactions
                if done.kind is not OutcomeKind.DONE:
                    return self.looked(_withdrawable_step(self._agent), sale, "failed", done.reason)
            intent = pay(self._desk.readers, self._desk.store, actors, self._payout(claim.payment), self._desk.payouts)
            self._sent.append(intent)
            if not intent.succeeded:
                why = f"«{intent.note}» ended {intent.state.value}; trimtab withdraw --resume {number} tries again"
                return self.looked(_withdrawable_step(self._agent), sale, "failed", why)
        ends = [intent.state for intent, _ in self._desk.store.paid(number) if intent.succeeded]
        step = _withdrawable_step(self._agent)
        if not any(one.id == number for one in self._desk.store.requests(1_000, open_only=True)):
            message = f"withdrawal {number} was taken back meanwhile; {len(ends)} of its {len(self._whole)} payments were made"
            return self.looked(step, sale, "failed", message)
        if any(state is not IntentState.FINAL for state in ends):
            return self.looked(step, sale, "waiting", f"paid; confirmations are awaited: trimtab withdraw --resume {number}")
        self._desk.store.end_request(number, RequestState.DONE, self._desk.clock.now_s())
        return self.looked(step, sale, "paid", f"paid to {self._to}")

    @property
    def _number(self) -> int | None:
        return None if self.request is None else self.request.id

    @property
    def _whole(self) -> tuple[Payment, ...]:
        """All its payments; `_payments` are those unpaid when this command began."""
        return self._payments if self.request is None else self.request.payments

    def _write(self, step: StepInput) -> None:
        """Record the request before anything is sent."""
        self._sure = True
        if self.request is None:
            self.request = self._desk.store.ask(RequestKind.WITHDRAW, self._payments, self._to, False, step.snapshot.head.timestamp_s)
        else:
            self._desk.store.redirect(self.request.id, self._to)

    def _not_sold(self, step: StepInput, sale: StepOutcome) -> WithdrawalReport:
        """Report of a sale without effect: a withdrawal begun with it that sold nothing is released; an earlier one stays set aside."""
        state = {OutcomeKind.DECLINED: "declined", OutcomeKind.FAILED: "failed"}.get(sale.kind, "refused")
        fresh = self._sure and not self._of_before and not any(intent.succeeded and intent.kind.value == "swap" for intent in self._sent)
        if fresh and self._number is not None:
            self._desk.store.end_request(self._number, RequestState.RELEASED, self._desk.clock.now_s())
        elif self._sure and self.request is not None:  # the part that was begun sold nothing
            self._desk.store.record_parts_raised(self.request.id, self.request.parts)
        return self.looked(step, sale, state, sale.reason)

    def _claimed(self, step: StepInput) -> StepInput:
        """The step with this withdrawal set aside, recorded or not."""
        if self.request is not None or any(claim.request == 0 for claim in step.history.claims):
            return step
        return withdrawals.reserve_claims(step, tuple(PendingPayment(0, payment) for payment in self._payments))

    def _withdrawal_readers(self) -> StepReaders:
        readers = self._desk.readers
        return replace(
            readers,
            assemble=lambda snapshot, history: self._claimed(withdrawals.reserve_pending_deposits(readers.assemble(snapshot, history))),
        )

    def _short(self, step: StepInput) -> str | None:
        """The token of this withdrawal that has a shortfall."""
        tokens = dict.fromkeys(payment.token for payment in self._payments)
        return next((token for token in tokens if withdrawals.shortfall_raw(step, token) > 0), None)

    def _next(self) -> PendingPayment | None:
        found = _withdrawable_step(self._agent).history.claims
        return next((claim for claim in found if claim.request == self._number), None)

    def _payout(self, payment: Payment) -> Payout:
        return Payout(NATIVE if payment.native else payment.token, self._to or "", payment.raw, 0, self._number or 0)

    def _verdicts(self, step: StepInput) -> tuple[Verdict, ...]:
        if self._to is None:
            return ()
        payouts = [self._payout(payment) for payment in self._payments]
        return portfolio.judge_payout_permission(step, payouts, self._desk.payouts, self._desk.switch.is_paused() is not False)

    def _to_unwrap(self, claim: PendingPayment) -> int:
        """Wrapped coin that has to be unwrapped before the payment, besides its gas."""
        step = _withdrawable_step(self._agent)
        there = step.snapshot.native_wei - native_coin.floor_wei(step) - native_coin.margin_wei(step)
        return min(max(0, claim.payment.raw - max(0, there)), native_coin.wrapped_raw(step))
