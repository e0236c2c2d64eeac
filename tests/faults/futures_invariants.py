"""What must hold of futures orders after every fault, told by the venue's contracts: each violation in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from web3.logs import DISCARD

from agent.margin import account as margin
from agent.model import Intent, IntentKind
from agent.signing.calldata import UndecodableCalldata
from agent.signing.futures import MarginTransfer, OpenPosition, decode
from agent.units import BPS
from tests.faults.scene import FuturesLayer
from tests.support.perps import WAD, read_now

COST_BPS = 210
"""Slippage from the index and fee of an order: what a unit traded may cost."""
BOUND_BPS = 500
"""Distance of a bound from the index; that of emergencies, the wider one."""
BAND_BPS = 500
CENT = WAD // 100


def violations(layer: FuturesLayer, intents: Sequence[Intent], sent: Sequence[Any]) -> list[str]:
    """Everything that is not as it must be once healthy steps have run: fills, targets, leverage and value."""
    fills = [fill for transaction in sent for fill in exchanged(layer, transaction["hash"])]
    return [
        *filled(layer, intents, fills),
        *paid_in(layer, sent),
        *reached(layer),
        *leverage(layer, sent),
        *value(layer, fills),
    ]


def exchanged(layer: FuturesLayer, tx_hash: str) -> list[tuple[str, str, int, int]]:
    """Trader, market, size and quote of every fill in a mined transaction, from its events."""
    receipt = layer.perps.chain.w3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]  # hex text does
    events = layer.perps.clearing_house.events.PositionChanged().process_receipt(receipt, errors=DISCARD)
    args = [event["args"] for event in events]
    return [(arg["trader"], arg["baseToken"], arg["exchangedPositionSize"], arg["exchangedPositionNotional"]) for arg in args]


def filled(layer: FuturesLayer, intents: Sequence[Intent], fills: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """Each order is filled once or not at all: what the journal holds is what the chain exchanged, and that is all that changed."""
    journal = Counter[str]()
    chain = Counter[str]()
    gross = Counter[str]()
    problems = []
    for intent in intents:
        if intent.kind is not IntentKind.FUTURES or not intent.succeeded or intent.receipt is None:
            continue
        if intent.tx.to == layer.spender:  # margin
            continue
        if len(intent.receipt.fills) != 1:
            problems.append(f"{intent.tx_hash} filled {len(intent.receipt.fills)} orders")
        for fill in intent.receipt.fills:
            journal[fill.market] += fill.size_raw
    for trader, market, size, _ in fills:
        if trader != layer.trader:
            problems.append(f"an order was filled for {trader}")
        chain[market] += size
        gross[market] += abs(size)
    now = read_now(layer.perps, layer.trader)
    for market in now.markets:
        name = market.market
        symbol = market.symbol
        change = now.size_raw(name) - layer.before.size_raw(name)
        if not journal[name] == chain[name] == change:
            problems.append(f"{symbol}: the journal filled {journal[name]}, the chain {chain[name]}, the position changed by {change}")
        if gross[name] * BPS > abs(change) * (BPS + 200) + WAD // 100:
            problems.append(f"{symbol}: {gross[name]} was traded to change the position by {change}")
    return problems


def paid_in(layer: FuturesLayer, sent: Sequence[Any]) -> list[str]:
    """Margin was deposited as often as it should be, and the account has what the wallet gave."""
    deposits = [raw for transaction in sent for raw in deposited(layer, transaction["hash"])]
    problems = [] if len(deposits) == layer.deposits else [f"margin was deposited {len(deposits)} times: {deposits}"]
    if sum(deposits) != deposited_raw(layer):
        problems.append(f"{sum(deposits)} was deposited, the account has {deposited_raw(layer)} more")
    return problems


def deposited(layer: FuturesLayer, tx_hash: str) -> list[int]:
    """Base units that a mined transaction deposited, from the vault's events."""
    receipt = layer.perps.chain.w3.eth.get_transaction_receipt(tx_hash)  # type: ignore[arg-type]  # hex text does
    events = layer.perps.vault.events.Deposited().process_receipt(receipt, errors=DISCARD)
    return [int(event["args"]["amount"]) for event in events if event["args"]["trader"] == layer.trader]


def deposited_raw(layer: FuturesLayer) -> int:
    """Base units of collateral that the account has more than before; profit and funding are settled with none of it here."""
    return (read_now(layer.perps, layer.trader).collateral_raw - layer.before.collateral_raw) // layer.before.collateral_unit_raw


def margin_usd(layer: FuturesLayer) -> Fraction:
    """Dollars that the account is worth."""
    return Fraction(margin.account_value_raw(read_now(layer.perps, layer.trader)), WAD)


def reached(layer: FuturesLayer) -> list[str]:
    """Every weight is within its band of its target, and the leverage below its limit."""
    now = read_now(layer.perps, layer.trader)
    account_now = []
    gross = Fraction(margin.gross_notional_raw(now))
    for symbol, weight in layer.weights.items():
        market = layer.perps.markets[symbol].base_token
        share = Fraction(margin.position_value_raw(now.market(market), now.size_raw(market))) / gross if gross else Fraction(0)
        target = Fraction(weight.rstrip("%")) / 100
        if abs(share - target) > Fraction(BAND_BPS, BPS):
            account_now.append(f"{symbol} is {float(share):.4f} of the notional, its target {float(target):.4f}")
    is_at = margin.leverage(now)
    if is_at is None or is_at > Fraction(layer.most_bps, BPS):
        account_now.append(f"the leverage is {is_at and float(is_at)} in the end")
    return account_now


def leverage(layer: FuturesLayer, sent: Sequence[Any]) -> list[str]:
    """In no block did an order end above the leverage limit, unless it only reduced."""
    problems = []
    for transaction in sent:
        if not exchanged(layer, transaction["hash"]):
            continue
        number = int(transaction["blockNumber"], 16)
        before, _ = _at(layer, number - 1)
        after, gross = _at(layer, number)
        if gross * BPS > layer.most_bps * after and _notional(layer, number) >= _notional(layer, number - 1):
            problems.append(
                f"{transaction['hash']} took the leverage to {gross / after if after > 0 else 'unlimited'} of a value of {before}"
            )
    return problems


def _at(layer: FuturesLayer, block: int) -> tuple[int, int]:
    """Account value and gross notional at a block, by the contracts."""
    value = layer.perps.clearing_house.functions.getAccountValue(layer.trader).call(block_identifier=block)
    return int(value), _notional(layer, block)


def _notional(layer: FuturesLayer, block: int) -> int:
    return int(layer.perps.account_balance.functions.getTotalAbsPositionValue(layer.trader).call(block_identifier=block))


def value(layer: FuturesLayer, fills: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """The account lost no more than slippage and fee of what it traded, and kept its collateral."""
    now = read_now(layer.perps, layer.trader)
    account_now = []
    traded = sum(abs(quote) for _, _, _, quote in fills)
    funding = sum(abs(position.funding_pending_raw) for position in now.positions)
    paid_in_raw = deposited_raw(layer) * layer.before.collateral_unit_raw
    lost = margin.account_value_raw(layer.before) + paid_in_raw - margin.account_value_raw(now)
    if lost > traded * COST_BPS // BPS + funding + CENT:
        account_now.append(f"the account lost {lost / WAD:.2f} USD on {traded / WAD:.2f} traded")
    return account_now


def beyond_policy(layer: FuturesLayer, transaction: Any, wallet: str, latest_s: int) -> list[str]:
    """What is wrong with a transaction to clearing house or vault: another call, trader, market or bound, or a deadline that is too far."""
    try:
        call = decode(bytes.fromhex(transaction["input"].removeprefix("0x")))
    except UndecodableCalldata as error:
        return [f"{transaction['hash']} is outside the policy: {error}"]
    if isinstance(call, MarginTransfer) and call.is_deposit and call.token == layer.perps.collateral_token.address and layer.deposits:
        return []
    if not isinstance(call, OpenPosition):
        return [f"{transaction['hash']} is outside the policy: {type(call).__name__}"]
    problems = []
    if (call.trader or wallet).lower() != layer.trader.lower():
        problems.append(f"{transaction['hash']} trades for {call.trader}")
    names = {market.market: market for market in layer.before.markets}
    if call.market not in names:
        return [*problems, f"{transaction['hash']} trades in {call.market}"]
    fair = abs(call.size_raw) * names[call.market].index
    away = Fraction(call.bound_raw) / fair - 1 if call.size_raw > 0 else 1 - Fraction(call.bound_raw) / fair
    if away * BPS > BOUND_BPS:
        problems.append(f"{transaction['hash']} is bound {float(away) * 100:.2f} % from the index")
    if call.deadline_s > latest_s:
        problems.append(f"{transaction['hash']} ends at {call.deadline_s}, after {latest_s}")
    return problems
