"""Assets that an edit adds or removes: inspection of new tokens, and remaining holdings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.agent import Agent
from agent.app.describe import pool_names
from agent.app.start import trust
from agent.app.start.doctor.checks import screen_tokens
from agent.chain.rpc import Transport
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.layers.questions import raw_outside_wallet
from agent.model import (
    CodeHash,
    Pool,
    Portfolio,
    PriceSource,
    ReferenceConfig,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.policy import minimum, native_coin
from agent.ports import Clock
from agent.reference import ReferencePrices, reference_prices
from agent.reference.prices import twap_rejection
from agent.units import decimal_text, shown_price_text, value_text

if TYPE_CHECKING:
    from agent.app.documents.owner import ContractDocument


@dataclass(frozen=True, slots=True)
class NewTokens:
    """Tokens that an edit adds.

    `notes` has lines on price and screening of each token, `contracts` their contracts and those of
    their pools as in `trimtab trust`, with the `liquidity` of these pools. `implementations` are
    those of the proxies among them.
    """

    notes: tuple[str, ...] = ()
    contracts: tuple[ContractDocument, ...] = ()
    implementations: tuple[trust.Implementation, ...] = ()

    @property
    def unpinned_contracts(self) -> tuple[ContractDocument, ...]:
        """New contracts, which the confirmation pins. Changed code needs `trimtab trust`
        instead.
        """
        return tuple(contract for contract in self.contracts if contract["state"] == "new")


NO_NEW_TOKENS = NewTokens()


def inspect_new_tokens(
    context: wiring.AgentContext, config_before: LoadedConfig | None
) -> tuple[wiring.AgentContext, NewTokens]:
    """Return the context that treats the pools of added tokens as pinned, and the tokens that the
    edit adds to `config_before`. Raises Refused for a token without a price or with a failed
    screening, and for an address without code.
    """
    added_tokens = _added_tokens(context, config_before)
    if not added_tokens:
        return context, NO_NEW_TOKENS
    snapshot = context.position_reader.snapshot()
    contracts, implementations = _added_contracts(context, snapshot, added_tokens)
    context = _with_pinned_pools(context, contracts)
    step = context.readers.step_input_at(snapshot)
    current_prices = reference_prices(step)
    _require_prices(context, current_prices, added_tokens)
    notes = [
        _price_note(step.snapshot, step.portfolio, step.reference, current_prices, token, contracts)
        for token in added_tokens
    ]
    notes += _screening_notes(context, step, added_tokens)
    liquidity_by_contract = _liquidity_by_contract(
        step.snapshot, step.portfolio, current_prices, added_tokens
    )
    documents_with_liquidity = tuple(
        contract | {"liquidity": liquidity_by_contract.get(contract["address"], "")}
        for contract in contracts
    )
    return context, NewTokens(tuple(notes), documents_with_liquidity, tuple(implementations))


def _added_tokens(
    context: wiring.AgentContext, config_before: LoadedConfig | None
) -> Sequence[str]:
    if config_before is None:
        return ()
    addresses_before = {asset.address for asset in config_before.config.portfolio.listed_tokens}
    return [address for address in context.token_addresses if address not in addresses_before]


def _added_contracts(
    context: wiring.AgentContext, snapshot: Snapshot, added_tokens: Sequence[str]
) -> tuple[Sequence[ContractDocument], Sequence[trust.Implementation]]:
    """Return the contracts of the added tokens, their pools and their proxy implementations, and
    these implementations. Raises Refused for an address without code.
    """
    all_contracts, all_implementations, no_code_verdicts = trust.list_contracts(context, snapshot)
    implementations = [
        implementation
        for implementation in all_implementations
        if implementation.proxy in added_tokens
    ]
    added_pools = [
        pool for pool in context.pools if not {pool.token0, pool.token1}.isdisjoint(added_tokens)
    ]
    added_addresses = {
        *added_tokens,
        *(pool.contract for pool in added_pools),
        *(implementation.address for implementation in implementations),
    }
    trust.require_code(
        [verdict for address, verdict in no_code_verdicts if address in added_addresses]
    )
    contracts = [contract for contract in all_contracts if contract["address"] in added_addresses]
    return contracts, implementations


def _with_pinned_pools(
    context: wiring.AgentContext, contracts: Sequence[ContractDocument]
) -> wiring.AgentContext:
    """Return the context whose reference prices count the pools among the new contracts."""
    new_hashes = [
        CodeHash(contract["address"], contract["code_hash"])
        for contract in contracts
        if contract["state"] == "new"
    ]
    trusted_code = (*(context.reference.twap_pools or ()), *new_hashes)
    return replace(context, reference=replace(context.reference, twap_pools=trusted_code))


def _require_prices(
    context: wiring.AgentContext, current_prices: ReferencePrices, tokens: Sequence[str]
) -> None:
    unpriced_tokens = [token for token in current_prices.unpriced if token.token in tokens]
    if unpriced_tokens:
        reasons = [
            f"{unpriced_token.label}: {unpriced_token.why}" for unpriced_token in unpriced_tokens
        ]
        raise Refused(
            f"no price for {'; '.join(reasons)}",
            tuple(
                Verdict("price", reason, "a source of reference.kind", False) for reason in reasons
            ),
            f"name its feed in dollars: --set portfolio.assets.{unpriced_tokens[0].label}.feed=0x…; "
            'or let pools price it: reference.kind = ["feed", "twap"], see trimtab oracle',
        )


def _price_note(
    snapshot: Snapshot,
    portfolio: Portfolio,
    reference_config: ReferenceConfig,
    current_prices: ReferencePrices,
    token: str,
    contracts: Sequence[ContractDocument],
) -> str:
    reference_price = current_prices.reference_by_token[token]
    numeraire = portfolio.numeraire
    token_details = portfolio.token(token)
    pools_text = ""
    if reference_price.source is PriceSource.TWAP:
        counted_pool_addresses = {
            pool.address
            for pool in snapshot.pools
            if token in (pool.token0, pool.token1)
            and pool.keeps_observations
            and not twap_rejection(snapshot, reference_config, pool)
        }
        pool_roles_text = ", ".join(
            contract["role"]
            for contract in contracts
            if contract["address"] in counted_pool_addresses and contract["state"] == "new"
        )
        if pool_roles_text:
            pools_text = f" (of the new pools: {pool_roles_text})"
    coin_price = shown_price_text(reference_price.price, token_details.decimals, numeraire.decimals)
    return (
        f"{token_details.label} is priced by {reference_price.source.value}: {reference_price.detail}{pools_text}; now {coin_price}"
        f" {numeraire.label}"
    )


def _screening_notes(
    context: wiring.AgentContext, step: StepInput, added_tokens: Sequence[str]
) -> list[str]:
    """Return lines on the screening of the added tokens and their pools, or that a token was not
    screened. Raises Refused for a token that fails it.
    """
    notes = []
    screened_addresses = set()
    for label, screened_token in screen_tokens(context, step):
        if screened_token.token not in added_tokens:
            continue
        screened_addresses.add(screened_token.token)
        if not screened_token.finding.is_tradable:
            finding_text = f"{label}: {screened_token.why}"
            verdict = Verdict("token_screen", finding_text, "transfers the exact amount", False)
            raise Refused(
                f"{label} is not added: {screened_token.why}",
                (verdict,),
                screened_token.finding.remedy,
            )
        notes.append(f"{label} was screened: {screened_token.why}")
        notes += [
            f"{label} in pool {failed_pool.pool}: {failed_pool.why}"
            for failed_pool in screened_token.failed_pools
        ]
    why = (
        "no transfer of it can be simulated"
        if context.limits.token_screen
        else "limits.token_screen is off"
    )
    notes += [
        f"{context.portfolio.token(token).label} was not screened: {why}"
        for token in added_tokens
        if token not in screened_addresses
    ]
    return notes


def _liquidity_by_contract(
    snapshot: Snapshot,
    portfolio: Portfolio,
    current_prices: ReferencePrices,
    added_tokens: Sequence[str],
) -> dict[str, str]:
    """Return the depth of the added tokens' pools as text, by contract. A contract that holds many
    pools, as Uniswap V4's PoolManager does, has the name of each before its depth.
    """
    label_by_pool = pool_names(snapshot, portfolio)
    texts_by_contract = defaultdict(list)
    for pool in snapshot.pools:
        if {pool.token0, pool.token1}.isdisjoint(added_tokens):
            continue
        depth_text = _depth_text(portfolio, current_prices, pool)
        if pool.address != pool.contract:
            depth_text = f"{label_by_pool[pool.address]}: {depth_text}"
        texts_by_contract[pool.contract].append(depth_text)
    return {address: "; ".join(texts) for address, texts in texts_by_contract.items()}


def _depth_text(portfolio: Portfolio, current_prices: ReferencePrices, pool: Pool) -> str:
    """Return the depth of both sides of the pool as text: in the numeraire, or in both tokens if a
    price is missing.
    """
    numeraire = portfolio.numeraire
    pool_tokens = (pool.token0, pool.token1)
    if any(token not in current_prices.reference_by_token for token in pool_tokens):
        token_depths = [(portfolio.token(token), pool.depth(token)) for token in pool_tokens]
        return " and ".join(
            f"{decimal_text(depth_raw, token.decimals)} {token.label}"
            for token, depth_raw in token_depths
        )
    depth_value = sum(
        (
            pool.depth(token) * current_prices.reference_by_token[token].price
            for token in pool_tokens
        ),
        Fraction(0),
    )
    return f"{value_text(depth_value, numeraire.decimals, 0)} {numeraire.label}"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Holding of a removed asset. `amount` is in whole coins, None if it was not read. `is_dust` means
    that selling costs more gas than it yields.
    """

    symbol: str
    amount: str | None
    is_dust: bool

    @property
    def is_sellable(self) -> bool:
        """True if the amount is known and worth selling."""
        return self.amount is not None and not self.is_dust

    @property
    def amount_text(self) -> str:
        """Amount and symbol."""
        return f"{self.amount} {self.symbol}"


def find_leftovers(
    config_before: LoadedConfig | None,
    config_after: LoadedConfig,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
) -> list[Leftover]:
    """Return the holdings of assets that `config_after` removes. Raises Retryable if the chain cannot
    be read.
    """
    if config_before is None:
        return []
    addresses_after = {asset.address for asset in config_after.config.portfolio.assets}
    if all(asset.address in addresses_after for asset in config_before.config.portfolio.assets):
        return []
    with wiring.open_context(
        config_before, transports, clock, includes_untrusted_pools=True
    ) as context:
        return list_leftovers(Agent(context).step_input(), addresses_after)


def list_leftovers(step: StepInput, addresses_after: Collection[str]) -> list[Leftover]:
    """Return the holdings of assets without an address in `addresses_after`, in the wallet and
    outside it, without gas money. A holding without a price is not dust. Raises Refused if what is
    outside the wallet is unknown.
    """
    wallet_raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    price_by_token = reference_prices(step).price_by_token
    native_price = price_by_token.get(step.portfolio.wrapped_native)
    removed_assets = [
        asset for asset in step.portfolio.assets if asset.token.address not in addresses_after
    ]
    outside_raw_by_token = raw_outside_wallet(step, price_by_token) if removed_assets else {}
    leftovers = []
    for asset in removed_assets:
        token = asset.token
        wallet_raw = wallet_raw_by_token.get(token.address)
        if wallet_raw is None:
            leftovers.append(Leftover(token.label, None, False))
            continue
        held_raw = wallet_raw + outside_raw_by_token.get(token.address, 0)
        if asset.includes_native:
            held_raw += native_coin.wrappable_wei(step.snapshot, step.portfolio, step.limits)
        if held_raw > 0:
            price = price_by_token.get(token.address)
            is_dust = (
                native_price is not None
                and price is not None
                and held_raw * price <= minimum.leg_gas_value(step.snapshot, native_price)
            )
            leftovers.append(Leftover(token.label, decimal_text(held_raw, token.decimals), is_dust))
    return leftovers


def leftover_lines(leftovers: Sequence[Leftover], keep_holdings: bool) -> tuple[str, ...]:
    """Return a line for each holding that leaves the portfolio unsold. Raises Refused if any is worth
    selling or was not read, unless `keep_holdings`.
    """
    unread_symbols = [leftover.symbol for leftover in leftovers if leftover.amount is None]
    if unread_symbols and not keep_holdings:
        raise Refused(
            f"the balance of {', '.join(unread_symbols)} cannot be read, and what there is would be"
            " unmanaged",
            tuple(
                Verdict("holdings", f"{symbol}: not read", "none", False)
                for symbol in unread_symbols
            ),
            "try again; or --keep-holdings leaves it where it is",
        )
    sellable_leftovers = [leftover for leftover in leftovers if leftover.is_sellable]
    if sellable_leftovers and not keep_holdings:
        amounts_text = ", ".join(leftover.amount_text for leftover in sellable_leftovers)
        target_options = " ".join(
            f"--target {leftover.symbol}=0%" for leftover in sellable_leftovers
        )
        raise Refused(
            f"the portfolio holds {amounts_text}, which would be unmanaged",
            tuple(
                Verdict("holdings", leftover.amount_text, "none", False)
                for leftover in sellable_leftovers
            ),
            f"first {target_options} and a rebalance, then --remove; or --keep-holdings leaves it"
            " where it is",
        )
    lines = []
    for leftover in leftovers:
        if leftover.amount is None:
            lines.append(
                f"{leftover.symbol}, whose balance cannot be read, stays where it is and leaves the"
                " portfolio"
            )
            continue
        dust_note = ", less than the gas of its sale," if leftover.is_dust else ""
        lines.append(
            f"{leftover.amount_text}{dust_note} stay where they are and leave the portfolio"
        )
    return tuple(lines)
