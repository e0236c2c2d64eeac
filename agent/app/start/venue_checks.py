"""Checks of the futures venue for `trimtab doctor`: collateral, linked contract addresses, the
implementation behind each proxy; on Hyperliquid the account and its agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.app.documents.setup import FAIL, NOTE, OK, CheckLine
from agent.chain.lens import (
    BALANCE_OF,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    query_lens,
)
from agent.chain.tokens import UNREADABLE
from agent.config.futures import FuturesTable, HyperliquidTable
from agent.margin import account as margin
from agent.policy.futures.decide import approval_ends_soon
from agent.signing.calldata import address_from_word, selector
from agent.units import decimal_text, format_time

if TYPE_CHECKING:
    from agent import wiring
    from agent.model import Snapshot, StepInput

LINKS = (
    ("clearing_house", "getVault()", "vault"),
    ("clearing_house", "getExchange()", "exchange"),
    ("clearing_house", "getAccountBalance()", "account_balance"),
    ("clearing_house", "getClearingHouseConfig()", "config"),
    ("clearing_house", "getDelegateApproval()", "delegate_approval"),
    ("exchange", "getMarketRegistry()", "market_registry"),
    ("vault", "getClearingHouse()", "clearing_house"),
    ("vault", "getAccountBalance()", "account_balance"),
)
"""(contract, view, key of [futures] that its answer must equal)."""
_SETTLEMENT_TOKEN, _VAULT_DECIMALS = selector("getSettlementToken()"), selector("decimals()")
_HAS_POOL, _PRICE_FEED = selector("hasPool(address)"), selector("getPriceFeed()")
_CHAINLINK_FEED, _AGGREGATOR = selector("getChainlinkPriceFeedV3()"), selector("getAggregator()")


def venue_checks(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckLine]:
    """Yield a row for each part of the venue; none without [futures]."""
    table = context.config.futures
    if table is None:
        return
    if isinstance(table, HyperliquidTable):
        yield from _hyperliquid(context, step, table)
        return
    yield from _collateral(context, step, table)
    yield from _addresses(context, table)
    yield from _markets(context, table)
    yield from _implementations(context, step.snapshot, table.contracts)


def _hyperliquid(
    context: wiring.AgentContext, step: StepInput, table: HyperliquidTable
) -> Iterator[CheckLine]:
    """Read the account, and look for the approved agent."""
    venue = context.order_venue()
    if venue is None:
        return
    snapshot = venue.read(step.snapshot)
    if (account := snapshot.futures) is None:
        why = snapshot.futures_unknown
        yield "futures account", FAIL, why, "no orders are sent until the margin account is known"
        return
    value = decimal_text(margin.account_value_raw(account), account.quote.decimals)
    text = (
        f"{value} {account.quote.label} on the {table.network}, {len(account.positions)} positions"
    )
    if margin.account_value_raw(account) > 0:
        yield "futures account", OK, text, ""
    else:
        yield "futures account", NOTE, text, "deposit USDC at the venue before the first order"
    remedy = "trimtab delegate --send"
    if blocked := snapshot.futures_blocked:
        yield "futures agent", NOTE, blocked, remedy
    else:
        text = f"{table.agent_name}, approved until {format_time(snapshot.agent_end_s)}"
        ends_soon = approval_ends_soon(snapshot)
        yield "futures agent", NOTE if ends_soon else OK, text, remedy if ends_soon else ""
    yield _agent_key(table, context.loaded.path.parent)


def _agent_key(table: HyperliquidTable, folder: Path) -> CheckLine:
    """Check that a source of the agent key exists, without opening it."""
    check = "futures agent key"
    if table.key_name is None:
        return check, NOTE, "none: no order can be sent", "set futures.agent_keystore before --send"
    if table.agent_keystore is None:
        return check, OK, f"from {table.key_name}", ""
    path = folder / table.agent_keystore
    if not path.is_file():
        return check, NOTE, f"{path} does not exist", "trimtab delegate --send"
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        return check, FAIL, f"{path} is readable by others (mode {mode:04o})", f"chmod 600 {path}"
    return check, OK, f"keystore {path}", ""


def _collateral(
    context: wiring.AgentContext, step: StepInput, table: FuturesTable
) -> Iterator[CheckLine]:
    """Compare the vault's token and decimals with the configured collateral, and show balances."""
    check = "futures collateral"
    token = next(a.token for a in step.portfolio.assets if a.token.symbol == table.collateral)
    settlement, decimals, held = query_lens(
        context.line,
        [
            CallItem(table.vault, _SETTLEMENT_TOKEN),
            CallItem(table.vault, _VAULT_DECIMALS),
            CallItem(token.address, address_call(BALANCE_OF, table.vault)),
        ],
    )
    if (found := _address(settlement)) != token.address:
        text = f"the vault's collateral is {found}, but the config has {token.label} at {token.address}"
        yield check, FAIL, text, "correct futures.collateral, or the venue's addresses"
        return
    if (places := answer_uint(decimals, 8)) != token.decimals:
        text = f"the vault uses {places} decimals, {token.label} has {token.decimals}"
        yield check, FAIL, text, "correct the venue's addresses"
        return
    account, in_vault = step.snapshot.futures, answer_uint(held, 256)
    if account is None or not isinstance(in_vault, int):
        why = step.snapshot.futures_unknown or "the vault's balance could not be read"
        yield check, FAIL, why, "no orders are sent until the margin account is known"
        return
    margin_raw = account.collateral_raw // account.settlement_raw
    wallet_raw = next((h.raw for h in step.snapshot.holdings if h.token == token.address), 0)
    mine, free, all_of_it = (
        decimal_text(raw, token.decimals) for raw in (margin_raw, wallet_raw, in_vault)
    )
    text = f"{mine} {token.label} in the vault, {free} in the wallet, {token.decimals} decimals"
    if margin_raw > in_vault:
        text += f"; the vault holds {all_of_it} in total"
        yield check, NOTE, text, "the venue is short of tokens: withdraw the free collateral"
    elif margin_raw <= 0:
        yield check, NOTE, text, "deposit collateral before the first order"
    else:
        yield check, OK, text, ""


def _addresses(context: wiring.AgentContext, table: FuturesTable) -> Iterator[CheckLine]:
    """Compare the addresses that the contracts name with those of the config."""
    items = [CallItem(getattr(table, name), selector(view)) for name, view, _ in LINKS]
    wrong = []
    for (name, view, key), answer in zip(LINKS, query_lens(context.line, items), strict=True):
        if (found := _address(answer)) != getattr(table, key):
            wrong.append(f"{name}.{view} is {found}, futures.{key} is {getattr(table, key)}")
    if wrong:
        remedy = "correct the addresses of [futures]: the contracts belong to two deployments"
        yield "futures contracts", FAIL, "; ".join(wrong), remedy
    else:
        yield "futures contracts", OK, f"{len(LINKS)} links between the contracts agree", ""


def _markets(context: wiring.AgentContext, table: FuturesTable) -> Iterator[CheckLine]:
    """Compare each market's registration and index aggregator with the config."""
    line, bases = context.line, [market.base for market in table.markets]
    listed = query_lens(
        line, [CallItem(table.market_registry, address_call(_HAS_POOL, base)) for base in bases]
    )
    places = bases
    for view in (_PRICE_FEED, _CHAINLINK_FEED, _AGGREGATOR):
        answers = query_lens(line, [CallItem(place, view) for place in places])
        places = [_address(answer) for answer in answers]
    for market, is_listed, aggregator in zip(table.markets, listed, places, strict=True):
        check = f"futures market {market.symbol}"
        if answer_uint(is_listed, 8) != 1:
            text = f"the registry does not list {market.base}"
            yield check, FAIL, text, f"correct futures.markets.{market.symbol}.base"
        elif aggregator == UNREADABLE:
            text = "the aggregator behind its index could not be read"
            yield check, NOTE, text, f"make sure that {market.aggregator} is its index feed"
        elif aggregator != market.aggregator:
            text = f"its index comes from {aggregator}, but the config has {market.aggregator}"
            yield check, FAIL, text, f"correct futures.markets.{market.symbol}.aggregator"
        else:
            yield check, OK, f"listed, index by {aggregator}", ""


def _implementations(
    context: wiring.AgentContext, snapshot: Snapshot, contracts: Mapping[str, str]
) -> Iterator[CheckLine]:
    """Compare the implementation behind each proxy of the venue with its pin."""
    pinned = context.store.trust.implementations()
    hashes = {code.address: code.hash for code in snapshot.code_hashes}
    proxies = [one for one in snapshot.implementations if one.token in contracts]
    for one in proxies:
        check, known = f"proxy {contracts[one.token]}", pinned.get(one.token)
        if known is None:
            yield check, NOTE, f"implementation {one.address} is not pinned", "trimtab trust"
        elif known != (one.address, hashes.get(one.address, "")):
            text = f"implementation {one.address} differs from the pinned {known[0]}"
            yield check, FAIL, text, "find out why, then: trimtab trust"
        else:
            yield check, OK, f"implementation {one.address}, pinned", ""
    if not proxies:
        yield "futures proxies", OK, "no contract of the venue is a proxy", ""


def _address(answer: LensAnswer) -> str:
    value = answer_uint(answer, 160)
    return UNREADABLE if isinstance(value, CallStatus) else address_from_word(value)
