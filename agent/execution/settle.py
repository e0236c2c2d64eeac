"""What a mined transaction really did: amounts leg by leg, turnover, and its loss at the prices before the trade (T6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.errors import OperatorNeeded
from agent.model import Intent, Leg, Payout, Plan, Receipt
from agent.planning.payments import NATIVE_VENUE
from agent.ports import Journal
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class RealisedLeg:
    """Amounts that one leg exchanged by its pool's Transfer events, base units; None where no event fits the leg."""

    pool: str
    token_in: str
    token_out: str
    amount_in_raw: int | None
    amount_out_raw: int | None
    planned_in_raw: int
    planned_out_raw: int


def realised(plan: Plan, receipt: Receipt) -> tuple[RealisedLeg, ...]:
    """The plan's legs as they happened. Pools that serve several legs are matched in the order of the legs.

    What goes from one pool straight into the next is what one leg brings and what the other takes.
    """
    outgoing, incoming = list(receipt.transfers), list(receipt.transfers)

    def take(token: str, pool: str, *, into_pool: bool) -> int | None:
        unused = incoming if into_pool else outgoing
        for position, transfer in enumerate(unused):
            if transfer.token == token and (transfer.recipient if into_pool else transfer.sender) == pool:
                return unused.pop(position).raw
        return None

    turned = list(receipt.wrapped)

    def turn(leg: Leg) -> int | None:
        for position, made in enumerate(turned):
            if (made.token, NATIVE) == (leg.pool, made.sender if leg.token_in == NATIVE else made.recipient):
                return turned.pop(position).raw
        return None

    return tuple(
        _turned(leg, turn(leg))
        if leg.venue == NATIVE_VENUE
        else RealisedLeg(
            pool=leg.pool,
            token_in=leg.token_in,
            token_out=leg.token_out,
            amount_in_raw=take(leg.token_in, leg.pool, into_pool=True),
            amount_out_raw=take(leg.token_out, leg.pool, into_pool=False),
            planned_in_raw=leg.amount_in_raw,
            planned_out_raw=leg.amount_out_raw,
        )
        for leg in plan.legs
    )


def _turned(leg: Leg, raw: int | None) -> RealisedLeg:
    return RealisedLeg(leg.pool, leg.token_in, leg.token_out, raw, raw, leg.amount_in_raw, leg.amount_out_raw)


def native_delta(intent: Intent, wallet: str, coin: str) -> int:
    """Change of the wallet's native coin by a mined intent, its gas left aside, wei: what it sent along, and what came back of
    the wrapped native coin `coin` that the wallet or the contract it called unwrapped.
    """
    receipt = intent.receipt
    if receipt is None or receipt.status != 1:
        return 0
    return receipt.unwrapped(coin, wallet, intent.tx.to) - (intent.tx.value_wei if intent.tx.to != wallet else 0)


def loss(before: Mapping[str, int], after: Mapping[str, int], prices: Mapping[str, Fraction], gas_value: Fraction) -> Fraction:
    """Numeraire base units lost (negative: gained): balances before minus after at the prices before the trade, plus gas.

    Balances in base units per token; `prices` in numeraire base units per token base unit. A token without a price
    counts nothing when it grew; when it shrank its loss cannot be valued: OperatorNeeded.
    """
    total = gas_value
    for token in sorted({*before, *after}):
        delta = after.get(token, 0) - before.get(token, 0)
        price = prices.get(token)
        if price is None and delta < 0:
            raise OperatorNeeded(
                f"{-delta} base units of {token} went and have no reference price", "check the receipt, then add a feed for it"
            )
        total -= delta * (price or 0)
    return total


def turnover(deltas: Mapping[str, int], prices: Mapping[str, Fraction]) -> Fraction:
    """Half the sum of absolute changes in value, numeraire base units; tokens without a price are left out."""
    return sum((abs(delta) * prices.get(token, Fraction(0)) for token, delta in deltas.items()), Fraction(0)) / 2


def book(
    journal: Journal,
    intent: Intent,
    wallet: str,
    prices: Mapping[str, Fraction],
    native_price: Fraction,
    chain_s: int,
    balances: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
    gain_counts: bool = True,
    coin: str = "",
    payout: Payout | None = None,
    apart: Fraction = Fraction(0),
) -> Fraction:
    """Books a mined intent, reverted and cancelling ones too, and returns its loss; booking again changes nothing.

    `prices` are the reference prices before the trade, `native_price` that of one wei. `balances` are those before and
    after, where they were read: the loss is the worse of what they and what the receipt's events say, so that neither a
    token that lies in its events nor a deposit in between hides one. `chain_s` is the time of the block, or later.
    Only tokens in `prices` count. Without `gain_counts` the loss is at least the gas: prices of another time prove no gain.
    Native coin counts as `coin`, its wrapped token, so that wrapping is no loss. What a payout pays is no loss either, but an outflow.
    `apart` is the value of a purchase or of a withdrawal's sale, which limits of turnover do not count.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    deltas = {token: raw for token, raw in receipt.net(wallet).items() if token in prices}
    native_wei = native_delta(intent, wallet, coin)
    if native_wei and coin in prices:
        deltas[coin] = deltas.get(coin, 0) + native_wei
    paid, outflow = _paid(receipt, payout, coin), Fraction(0)
    for token, raw in paid.items():
        deltas[token], outflow = deltas.get(token, 0) + raw, outflow + raw * prices.get(token, Fraction(0))
    lost = loss({}, deltas, prices, gas_value)
    if balances is not None:
        lost = max(lost, loss(*balances, prices, gas_value))
    if not gain_counts:
        lost = max(lost, gas_value)
    moved = max(Fraction(0), turnover(deltas, prices) - apart) if payout is None else Fraction(0)
    journal.book(intent, moved, lost, receipt.gas_cost_wei, chain_s, outflow)
    return lost


def _paid(receipt: Receipt, payout: Payout | None, coin: str) -> dict[str, int]:
    """What a payout that succeeded paid by its owner's wish, base units by token."""
    if payout is None or receipt.status != 1:
        return {}
    return {coin if payout.token == NATIVE else payout.token: payout.raw}
