"""What a shutdown may pay out: free holdings beyond reserves and gas money, today's part of
each.
"""

from __future__ import annotations

from dataclasses import replace

from agent.model import Payment, Portfolio, Snapshot, StepInput
from agent.policy import minimum, native_coin
from agent.policy.cash_flows import cash_limit, transfers
from agent.reference import ReferencePrices, reference_prices
from agent.units import NATIVE, decimal_text, shortened_text

PAYOUT_GAS = 60_000
"""Gas units of one payout; a payment below its gas cost is not sent."""


def payable_today(step: StepInput, payment: Payment) -> Payment:
    """Return the part of a payment within the remainder of limits.payout_per_day; the whole, which
    the guard then refuses, if that part is worth less than its gas.
    """
    payable_payment = replace(
        payment, raw=min(payment.raw, transfers.max_payout_raw(step, payment.token))
    )
    return (
        payable_payment
        if payable_payment.raw > 0
        and _exceeds_gas(step.snapshot, step.portfolio, reference_prices(step), payable_payment)
        else payment
    )


def payments_of_free_holdings(step: StepInput) -> tuple[Payment, ...]:
    """Return the payments of all holdings beyond reserves, gas money and positions, with native and
    wrapped coin listed separately. Payments worth less than their gas are omitted.
    """
    step = cash_limit.restore_excluded_amounts(step)
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    gas_money_wei = native_coin.floor_wei(step.limits) + native_coin.worst_gas_cost_wei(
        step.snapshot, step.limits
    )
    payments: list[Payment] = []
    for asset in step.portfolio.assets:
        token_address = asset.token.address
        wallet_raw = raw_by_token.get(asset.token.address, 0)
        payments.append(Payment(token_address, wallet_raw - asset.reserve_raw))
        if asset.includes_native:
            reserve_wei = max(0, asset.reserve_raw - wallet_raw)
            free_wei = step.snapshot.native_wei - gas_money_wei - reserve_wei
            payments.append(Payment(token_address, free_wei, True))
    return tuple(
        payment
        for payment in payments
        if payment.raw > 0
        and _exceeds_gas(step.snapshot, step.portfolio, reference_prices(step), payment)
    )


def kept_back_text(step: StepInput) -> str:
    """Return what a shutdown never pays out, in whole coins: gas money and reserves; empty without
    any.
    """
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    gas_money_wei = step.snapshot.native_wei
    kept_texts = []
    for asset in step.portfolio.assets:
        kept_raw = min(raw_by_token.get(asset.token.address, 0), asset.reserve_raw)
        if asset.includes_native:
            reserved_wei = min(step.snapshot.native_wei, asset.reserve_raw - kept_raw)
            gas_money_wei -= reserved_wei
            kept_raw += reserved_wei
        if kept_raw > 0:
            kept_texts.append(
                f"{decimal_text(kept_raw, asset.token.decimals)} {asset.token.label} held in reserve"
            )
    if gas_money_wei > 0:
        kept_texts.insert(0, f"{shortened_text(gas_money_wei, 18)} of native coin for gas")
    if not kept_texts:
        return ""
    return f"{', '.join(kept_texts)} {'stays' if len(kept_texts) == 1 else 'stay'} in the wallet"


def _exceeds_gas(
    snapshot: Snapshot, portfolio: Portfolio, references: ReferencePrices, payment: Payment
) -> bool:
    price = transfers.token_price(portfolio, references, payment.token)
    native_price = transfers.token_price(portfolio, references, NATIVE)
    if price is None or native_price is None:
        return True
    return payment.raw * price > minimum.leg_gas_value(snapshot, native_price, PAYOUT_GAS)
