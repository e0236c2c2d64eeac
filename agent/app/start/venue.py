"""The futures venue before the first trade. Checks for `trimtab doctor`: collateral, linked
contract addresses, the implementation behind each proxy; on Hyperliquid the account and its agent.
The agent's key: created, stored like other keys, and approved by the wallet on the venue.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eth_account import Account

from agent import wiring
from agent.app.documents.owner import FAIL, OK, WARN, CheckLine
from agent.app.start.wallet import Ask, PasswordSource, new_password, stated_address
from agent.chain.lens import (
    BALANCE_OF,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    query_lens,
)
from agent.chain.tokens import UNREAD_ADDRESS
from agent.config.secrets.key_sources import agent_key_source
from agent.config.tables.futures import FuturesTable, HyperliquidTable
from agent.errors import ConfigError, Refused
from agent.files import sync_folder
from agent.layers.futures.policy.needs import approval_ends_soon
from agent.layers.futures.state import margin_account
from agent.margin import account as margin
from agent.model import FuturesReading, Portfolio, Snapshot, Verdict
from agent.signing import keys
from agent.signing.calldata import address_from_word, selector
from agent.signing.secret import PrivateKey, disable_core_dumps
from agent.units import decimal_text, format_time, safe_label

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.owner import AgentApprovalDocument, MarketNumberDocument
    from agent.model import Snapshot


CONTRACT_LINKS = (
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


def venue_checks(
    context: wiring.AgentContext, snapshot: Snapshot, portfolio: Portfolio
) -> Iterator[CheckLine]:
    """Yield a row for each part of the venue; none without [futures]."""
    table = context.config.futures
    if table is None:
        return
    if isinstance(table, HyperliquidTable):
        yield from _hyperliquid_checks(context, snapshot, table)
        return
    yield from _collateral_checks(context, snapshot, portfolio, table)
    yield from _address_checks(context, table)
    yield from _market_checks(context, table)
    yield from _implementation_checks(context, snapshot, table.contracts)


def _hyperliquid_checks(
    context: wiring.AgentContext, unread_snapshot: Snapshot, table: HyperliquidTable
) -> Iterator[CheckLine]:
    """Read the account, and look for the approved agent."""
    venue = context.order_venue()
    if venue is None:
        return
    snapshot = venue.read(unread_snapshot)
    if (account := margin_account(snapshot)) is None:
        why = snapshot.layer(FuturesReading).unknown
        yield "futures account", FAIL, why, "no orders are sent until the margin account is known"
        return
    value = decimal_text(margin.account_value_raw(account), account.quote.decimals)
    text = (
        f"{value} {account.quote.label} on the {table.network}, {len(account.positions)} positions"
    )
    if margin.account_value_raw(account) > 0:
        yield "futures account", OK, text, ""
    else:
        yield "futures account", WARN, text, "deposit USDC at the venue before the first order"
    remedy = "trimtab delegate --send"
    if blocked_reason := snapshot.layer(FuturesReading).blocked:
        yield "futures agent", WARN, blocked_reason, remedy
    else:
        text = f"{table.agent_name}, approved until {format_time(snapshot.layer(FuturesReading).agent_end_s)}"
        if approval_ends_soon(snapshot):
            yield "futures agent", WARN, text, remedy
        else:
            yield "futures agent", OK, text, ""
    yield _agent_key_check(table, context.loaded.path.parent)


def list_markets(
    context: wiring.AgentContext,
) -> tuple[list[MarketNumberDocument], dict[str, int]]:
    """Return the number of each market of an off-chain venue that is configured, renumbered or new
    since the last pins, and the numbers of all its markets by name. Both are empty for another
    venue. Raises Retryable if the venue does not answer, Refused for a configured market that it
    does not have.
    """
    table = context.config.futures
    if not isinstance(table, HyperliquidTable):
        return [], {}
    market_numbers = wiring.listed_numbers(table)
    pinned_numbers = context.store.trust.market_numbers(table.network)
    configured_names = [market.venue_key for market in table.markets]
    for name in configured_names:
        if name not in market_numbers:
            raise Refused(
                f"futures.markets: {table.venue} lists no market {name}",
                remedy="correct its symbol, as listed by the venue",
            )
    differing_names = [
        name
        for name in market_numbers
        if pinned_numbers and pinned_numbers.get(name) != market_numbers[name]
    ]
    market_documents: list[MarketNumberDocument] = [
        {
            "market": safe_label(name, "a market without a printable name"),
            "number": market_numbers[name],
            "state": pin_state(pinned_numbers.get(name), market_numbers[name]),
        }
        for name in dict.fromkeys((*configured_names, *differing_names))
    ]
    return market_documents, market_numbers


def pin_state(pinned: object, current: object) -> str:
    """Return whether what is present is pinned, new, or differs from its pin."""
    if pinned is None:
        return "new"
    return "unchanged" if pinned == current else "CHANGED"


def pin_markets(context: wiring.AgentContext, market_numbers: Mapping[str, int]) -> None:
    """Pin the market numbers of an off-chain venue; the owner has confirmed them."""
    table = context.config.futures
    if isinstance(table, HyperliquidTable):
        context.store.trust.pin_markets(table.network, market_numbers)


def _agent_key_check(table: HyperliquidTable, folder: Path) -> CheckLine:
    """Check that a source of the agent key exists, without opening it."""
    check_name = "futures agent key"
    if table.key_name is None:
        return (
            check_name,
            WARN,
            "none: no order can be sent",
            "set futures.agent_keystore before --send",
        )
    if table.agent_keystore is None:
        return check_name, OK, f"from {table.key_name}", ""
    path = folder / table.agent_keystore
    if not path.is_file():
        return check_name, WARN, f"{path} does not exist", "trimtab delegate --send"
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        return (
            check_name,
            FAIL,
            f"{path} is readable by others (mode {mode:04o})",
            f"chmod 600 {path}",
        )
    return check_name, OK, f"keystore {path}", ""


def _collateral_checks(
    context: wiring.AgentContext, snapshot: Snapshot, portfolio: Portfolio, table: FuturesTable
) -> Iterator[CheckLine]:
    """Compare the vault's token and decimals with the configured collateral, and show balances."""
    check_name = "futures collateral"
    token = next(
        asset.token for asset in portfolio.assets if asset.token.symbol == table.collateral
    )
    token_answer, decimals_answer, balance_answer = query_lens(
        context.transport,
        [
            CallItem(table.vault, _SETTLEMENT_TOKEN),
            CallItem(table.vault, _VAULT_DECIMALS),
            CallItem(token.address, address_call(BALANCE_OF, table.vault)),
        ],
    )
    if (address := _answered_address(token_answer)) != token.address:
        text = f"the vault's collateral is {address}, but the config has {token.label} at {token.address}"
        yield check_name, FAIL, text, "correct futures.collateral, or the venue's addresses"
        return
    if (vault_decimals := answer_uint(decimals_answer, 8)) != token.decimals:
        text = f"the vault uses {vault_decimals} decimals, {token.label} has {token.decimals}"
        yield check_name, FAIL, text, "correct the venue's addresses"
        return
    account, vault_balance_raw = margin_account(snapshot), answer_uint(balance_answer, 256)
    if account is None or not isinstance(vault_balance_raw, int):
        why = snapshot.layer(FuturesReading).unknown or "the vault's balance could not be read"
        yield check_name, FAIL, why, "no orders are sent until the margin account is known"
        return
    margin_raw = account.collateral_raw // account.settlement_raw
    wallet_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == token.address), 0
    )
    margin_text, wallet_text, vault_text = (
        decimal_text(raw, token.decimals) for raw in (margin_raw, wallet_raw, vault_balance_raw)
    )
    text = f"{margin_text} {token.label} in the vault, {wallet_text} in the wallet, {token.decimals} decimals"
    if margin_raw > vault_balance_raw:
        text += f"; the vault holds {vault_text} in total"
        yield check_name, WARN, text, "the venue is short of tokens: withdraw the free collateral"
    elif margin_raw <= 0:
        yield check_name, WARN, text, "deposit collateral before the first order"
    else:
        yield check_name, OK, text, ""


def _address_checks(context: wiring.AgentContext, table: FuturesTable) -> Iterator[CheckLine]:
    """Compare the addresses that the contracts name with those of the config."""
    calls = [CallItem(getattr(table, name), selector(view)) for name, view, _ in CONTRACT_LINKS]
    mismatches = []
    for (name, view, key), answer in zip(
        CONTRACT_LINKS, query_lens(context.transport, calls), strict=True
    ):
        if (address := _answered_address(answer)) != getattr(table, key):
            mismatches.append(f"{name}.{view} is {address}, futures.{key} is {getattr(table, key)}")
    if mismatches:
        remedy = "correct the addresses of [futures]: the contracts belong to two deployments"
        yield "futures contracts", FAIL, "; ".join(mismatches), remedy
    else:
        yield (
            "futures contracts",
            OK,
            f"{len(CONTRACT_LINKS)} links between the contracts agree",
            "",
        )


def _market_checks(context: wiring.AgentContext, table: FuturesTable) -> Iterator[CheckLine]:
    """Compare each market's registration and index aggregator with the config."""
    transport, bases = context.transport, [market.base for market in table.markets]
    listed_answers = query_lens(
        transport,
        [CallItem(table.market_registry, address_call(_HAS_POOL, base)) for base in bases],
    )
    contracts = bases
    for view in (_PRICE_FEED, _CHAINLINK_FEED, _AGGREGATOR):
        answers = query_lens(transport, [CallItem(contract, view) for contract in contracts])
        contracts = [_answered_address(answer) for answer in answers]
    for market, listed_answer, aggregator in zip(
        table.markets, listed_answers, contracts, strict=True
    ):
        check_name = f"futures market {market.symbol}"
        if answer_uint(listed_answer, 8) != 1:
            text = f"the registry does not list {market.base}"
            yield check_name, FAIL, text, f"correct futures.markets.{market.symbol}.base"
        elif aggregator == UNREAD_ADDRESS:
            text = "the aggregator behind its index could not be read"
            yield check_name, WARN, text, f"make sure that {market.aggregator} is its index feed"
        elif aggregator != market.aggregator:
            text = f"its index comes from {aggregator}, but the config has {market.aggregator}"
            yield check_name, FAIL, text, f"correct futures.markets.{market.symbol}.aggregator"
        else:
            yield check_name, OK, f"listed, index by {aggregator}", ""


def _implementation_checks(
    context: wiring.AgentContext, snapshot: Snapshot, contracts: Mapping[str, str]
) -> Iterator[CheckLine]:
    """Compare the implementation behind each proxy of the venue with its pin."""
    pinned_implementations = context.store.trust.implementations()
    code_hashes = {code.address: code.hash for code in snapshot.code_hashes}
    implementations = [
        implementation
        for implementation in snapshot.implementations
        if implementation.token in contracts
    ]
    for implementation in implementations:
        check_name, pin = (
            f"proxy {contracts[implementation.token]}",
            pinned_implementations.get(implementation.token),
        )
        if pin is None:
            yield (
                check_name,
                WARN,
                f"implementation {implementation.address} is not pinned",
                "trimtab trust",
            )
        elif pin != (implementation.address, code_hashes.get(implementation.address, "")):
            text = f"implementation {implementation.address} differs from the pinned {pin[0]}"
            yield check_name, FAIL, text, "find out why, then: trimtab trust"
        else:
            yield check_name, OK, f"implementation {implementation.address}, pinned", ""
    if not implementations:
        yield "futures proxies", OK, "no contract of the venue is a proxy", ""


def _answered_address(answer: LensAnswer) -> str:
    word = answer_uint(answer, 160)
    return UNREAD_ADDRESS if isinstance(word, CallStatus) else address_from_word(word)


DEFAULT_DAYS, MAX_DAYS = 90, 179
"""Default and maximum days of an approval. The venue accepts less than 180 days by its own clock.
"""
DAY_MS = 86_400_000
PASSWORD_VARIABLE = "TRIMTAB_AGENT_PASSWORD"  # noqa: S105 the name of a variable

Confirm = Callable[["AgentApprovalDocument"], bool]


@dataclass(frozen=True, slots=True)
class _KeyLocation:
    """Location of the agent's key in the config: a file, a keyring entry (service, name), or a
    variable if both are None. `address` is that of the stored key, "" without one.
    """

    file: Path | None
    keyring_entry: tuple[str, str] | None
    address: str
    description: str


def uses_agent_key(agent: Agent) -> bool:
    """Return whether the futures venue is traded with an agent's key."""
    return isinstance(agent.context.config.futures, HyperliquidTable)


def approve_agent_key(
    agent: Agent,
    days: int | None,
    *,
    revokes: bool,
    send: bool,
    confirm: Confirm,
    ask: Ask | None,
) -> AgentApprovalDocument:
    """Approve the agent's key for `days`, with `send` and a confirmation; otherwise only preview.

    A key that was an agent approval is never approved again. A new one is created in its place, and
    the old file is kept beside it. If an earlier run was interrupted after the venue approved its
    key, that key is put in place and no other is approved. Raises ConfigError, Refused, Retryable.
    """
    table = _require_table(agent, revokes=revokes)
    disable_core_dumps()
    approver = wiring.AgentApprover(agent.context, table)
    approver.require_account()
    approval, location = approver.approved_agent(), _key_location(agent, table)
    interrupted_file = (
        None if approval is None else _interrupted_key_file(location, approval.address)
    )
    is_unused = (
        interrupted_file is None and bool(location.address) and approver.is_fresh(location.address)
    )
    if interrupted_file is None and location.address and not is_unused and location.file is None:
        raise ConfigError(
            f"the key {location.address} in {location.description} was an agent before; agent keys are never"
            f" used"
            " twice",
            "name another entry or variable in [futures]",
        )
    now_ms = agent.context.clock.now_s() * 1000
    until_ms = now_ms + (days or DEFAULT_DAYS) * DAY_MS
    document: AgentApprovalDocument = {
        "outcome": "planned",
        "account": agent.context.config.wallet.address,
        "network": table.network,
        "name": table.agent_name,
        "agent": location.address if is_unused else None,
        "key": location.description,
        "until": format_time(until_ms // 1000),
        "replaces": None if approval is None else approval.address,
        "kept": None,
    }
    if approval is not None and interrupted_file is not None:
        until_text = format_time(approval.valid_until_ms // 1000)
        document = {**document, "agent": approval.address, "until": until_text, "replaces": None}
    if not send:
        return document
    _require_unpaused(agent)
    if not confirm(document):
        return {**document, "outcome": "declined"}
    signer = approver.load_signer()
    session = wiring.open_wallet_session(
        agent.context, lambda _: False, lambda _: None, signs=False
    )
    with session.acting():
        _require_unpaused(agent)
        if approval is not None and interrupted_file is not None:
            if approver.approved_agent() != approval:
                raise Refused("the approval has changed meanwhile", remedy="run it again")
            agent.context.store.trust.remember_agent(approval.address, approval.valid_until_ms)
            old_file = _put_in_place(interrupted_file, location)
            return {
                **document,
                "outcome": "done",
                "kept": None if old_file is None else str(old_file),
            }
        if is_unused:
            key = keys.load_key(agent_key_source(agent.context.loaded), _chain_id(agent), ask=ask)
            new_approval = approver.approve(signer, key.address, until_ms)
            return {**document, "outcome": "done", "agent": new_approval.address}
        new_address, new_file = _create_key(location, ask)
        try:
            approver.approve(signer, new_address, until_ms)
        except Refused:
            if new_file is not None:
                new_file.unlink()
            raise
        old_file = None if new_file is None else _put_in_place(new_file, location)
    return {
        **document,
        "outcome": "done",
        "agent": new_address,
        "kept": None if old_file is None else str(old_file),
    }


def _require_table(agent: Agent, *, revokes: bool) -> HyperliquidTable:
    """Return [futures] of the venue. Raises ConfigError if it approves no keys, or on paper."""
    table = agent.context.config.futures
    if not isinstance(table, HyperliquidTable):
        raise ConfigError("delegate: the futures venue has no agent keys", "omit it")
    if revokes:
        raise ConfigError(
            "--end: Hyperliquid documents no action to revoke an agent",
            "remove it on the venue's API page, or approve another key under its name: trimtab"
            " delegate --send",
        )
    if agent.on_paper:
        raise ConfigError("delegate: not available on paper", "omit --paper")
    return table


def _key_location(agent: Agent, table: HyperliquidTable) -> _KeyLocation:
    """Return the key's location and address. Raises ConfigError."""
    if table.agent_keystore is not None:
        file = agent.context.loaded.path.parent / table.agent_keystore
        exists = os.path.lexists(file)
        address = stated_address(keys.read_private_file(file), file) if exists else ""
        return _KeyLocation(file, None, address, f"keystore {file}")
    if table.agent_keyring is not None:
        service, entry_name = table.agent_keyring.split("/")
        keyring_entry = (service, entry_name)
        address = (
            keys.load_from_keyring(keyring_entry).address if keys.in_keyring(keyring_entry) else ""
        )
        return _KeyLocation(None, keyring_entry, address, f"keyring {table.agent_keyring}")
    source = agent_key_source(agent.context.loaded)
    address = keys.load_key(source, _chain_id(agent), ask=None).address
    return _KeyLocation(None, None, address, f"variable {table.agent_key_env}")


def _interrupted_key_file(location: _KeyLocation, approved_address: str) -> Path | None:
    """Return the file of the approved key if an approval was interrupted before that file had its
    final name; None otherwise. Raises ConfigError if the file has another key.
    """
    if location.file is None or location.address == approved_address:
        return None
    interrupted_file = _file_beside(location.file, approved_address)
    if not os.path.lexists(interrupted_file):
        return None
    if (
        file_address := stated_address(keys.read_private_file(interrupted_file), interrupted_file)
    ) != approved_address:
        raise ConfigError(f"{interrupted_file} has the key {file_address}", "rename it")
    return interrupted_file


def _create_key(location: _KeyLocation, ask: Ask | None) -> tuple[str, Path | None]:
    """Create a key and store it. Return its address and file; the file has a temporary name until
    the key is approved. Raises ConfigError.
    """
    key = PrivateKey(Account.create())
    if location.keyring_entry is not None:
        keys.save_to_keyring(location.keyring_entry, key)
        return key.address, None
    if location.file is None:
        raise ConfigError("futures: nowhere to store a new agent key", "set futures.agent_keystore")
    file = _file_beside(location.file, key.address)
    variable = PASSWORD_VARIABLE if os.environ.get(PASSWORD_VARIABLE) else None
    password_source = PasswordSource(
        variable, env_option=f"export {PASSWORD_VARIABLE}, or --password-env"
    )
    keys.write_keystore(file, key, new_password(password_source, _ask_naming(location.file, ask)))
    return key.address, file


def _put_in_place(new_file: Path, location: _KeyLocation) -> Path | None:
    """Rename the new key's file to its final name. Return the new path of the old file, None
    without one.
    """
    if location.file is None:
        return None
    old_file = _file_beside(location.file, location.address) if location.address else None
    if old_file is not None:
        keys.require_free_path(old_file)
        location.file.rename(old_file)
    new_file.rename(location.file)
    sync_folder(location.file.parent)
    return old_file


def _file_beside(file: Path, address: str) -> Path:
    """Return the path of a key's file beside the one in use: its name, followed by the address."""
    return file.with_name(f"{file.name}.{address}")


def _ask_naming(file: Path, ask: Ask | None) -> Ask | None:
    return None if ask is None else lambda text: ask(f"Agent key {file.name}. {text}")


def _chain_id(agent: Agent) -> int:
    return agent.context.config.chain.chain_id


def _require_unpaused(agent: Agent) -> None:
    """Raise Refused while the kill switch is on."""
    if agent.context.switch.is_paused() is not False:
        verdict = Verdict("kill_switch", "on", "off", False)
        raise Refused("the kill switch is on: nothing is sent", (verdict,), "trimtab resume")
