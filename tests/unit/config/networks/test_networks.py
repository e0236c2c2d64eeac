"""Every value of every network is what a published package states, or a choice that is listed here with its reason."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from eth_utils import to_checksum_address

from agent.config.networks import NETWORKS, Network
from agent.config.networks.presets import PRESETS
from agent.config.tables.venues import VenueTable
from agent.model.rollups import ARBITRUM_CHAINS, OP_STACK_CHAINS, PLAIN_CHAINS, DataFeeKind, data_fee_kind
from agent.reference.prices import required_observations
from scripts.make.published_addresses import NAMES, PACKAGES

ROOT = Path(__file__).parents[4]
RECORD = json.loads((ROOT / "tests" / "data" / "published_addresses.json").read_text(encoding="utf-8"))
PAGE = ROOT / "docs" / "networks.md"
BY_NAME = {network.name: network for network in NETWORKS}

CHOICES = {
    "name": "our own word for it, which trimtab init accepts",
    "finality": "what is final is a choice: a block of a rollup may leave the chain with the block of Ethereum that holds it (T13)",
    "base_fee_ceiling_gwei": "a bound of ours, above the base fees of ordinary days",
    "gas_per_day": "a limit of a new config, for some hundred swaps",
    "native_floor": "as gas_per_day",
    "native_top_up": "as gas_per_day",
    "fees": "estimates; docs/networks.md has the source and date of each, or says that it is assumed",
    "venues.uniswap_v2.needs_rebalancer": "SwapRouter02 there is of 2021 to 2023, Uniswap V2 of 2024 (Uniswap/universal-router #334)",
    "private_endpoint": "no package names endpoints that relay a transaction unseen",
    "is_sequenced": "no package says who sees a transaction before its block",
}
"""Values that no package publishes, with the reason. Of tokens, is_hub and priced_as are choices too: which tokens routes pass
through, and which coin's feed prices a token that has none of its own. No package has heartbeats or thresholds of feeds; nor have we.
"""
DISPUTED = {
    (
        "base",
        "venues.slipstream.factory",
    ): "one package names Aerodrome's second factory; ours is the first, whose quoter and router are certain",
    ("base", "venues.slipstream.router"): "the package names another router; ours is in README.md of aerodrome-finance/slipstream, 7844368",
    ("optimism", "venues.slipstream.router"): "as on Base; ours is in README.md of velodrome-finance/slipstream, 193a6b8",
    ("unichain", "venues.uniswap_v3.quoter"): "the packages of Uniswap name another contract than Uniswap's documentation",
    ("arbitrum", "tokens.0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9.symbol"): "USDT became USDT0 at the same address",
    ("polygon", "tokens.0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270.symbol"): "WMATIC became WPOL at the same address",
    ("bnb", "tokens.0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c.symbol"): "PancakeSwap shows it as the native coin",
    ("bnb", "tokens.0x2170Ed0880ac9A755fd29B2688956BD959F933F8.symbol"): "Uniswap's list shows the contract's ETH as WETH",
}
"""Values on which packages differ from each other, or from ours."""
OMITTED = {
    ("bnb", "venues.pancake_v2.init_code_hash"): "two packages, two hashes; pairs are asked of the factory",
    (
        "unichain",
        "venues.slipstream.router",
    ): "its one source names other routers than the contracts' repositories do on Base and OP Mainnet",
}
"""Values that a package states and no network has."""


def values_of(network: Network) -> dict[str, str]:
    """Every value by key, as the record has them; what a network leaves empty is no value."""
    values = {
        field.name: getattr(network, field.name)
        for field in fields(network)
        if field.name not in {"feeds", "tokens", "venues"} and getattr(network, field.name) is not None
    }
    values |= {f"feeds.{coin}": proxy for coin, proxy in network.feeds.items()}
    for token in network.tokens:
        values |= {f"tokens.{token.address}.{name}": getattr(token, name) for name in ("symbol", "decimals")}
    for venue in network.venues:
        filled = {field.name: value for field in fields(venue) if (value := getattr(venue, field.name)) not in {None, False, ()}}
        values |= {f"venues.{venue.kind}.{name}": value for name, value in filled.items() if name not in {"kind", "name"}}
    return {key: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in values.items()}


def faults(network: Network) -> list[str]:
    """Keys whose value no package states, or another one, beyond what is listed above."""
    published = RECORD["values"][network.name]
    recorded_values = []
    for key, value in values_of(network).items():
        if key not in CHOICES and set(published.get(key, {})) != {value} and (network.name, key) not in DISPUTED:
            recorded_values.append(f"{network.name} {key}: {value}, published {published.get(key)}")
    return recorded_values


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_value_is_what_published_packages_state(network: Network) -> None:
    assert not faults(network)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_published_value_is_ours_or_omitted_for_a_reason(network: Network) -> None:
    omitted = {key for key in RECORD["values"][network.name] if key not in values_of(network)}
    assert omitted == {key for name, key in OMITTED if name == network.name}


def test_every_dispute_is_one() -> None:
    for name, key in DISPUTED:
        assert set(RECORD["values"][name][key]) != {values_of(BY_NAME[name])[key]}, f"{name} {key}"


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_changed_or_added_address_is_a_fault(network: Network) -> None:
    other = "0x" + "11" * 20
    changed = [
        replace(network, wrapped_native=other),
        replace(network, feeds={**network.feeds, "DOGE": other}),
        replace(network, tokens=(replace(network.tokens[0], address=other), *network.tokens[1:])),
        *(replace(network, venues=(replace(venue, deployer=other),)) for venue in network.venues),
    ]
    assert all(faults(network) for network in changed)


def test_the_record_is_of_the_pinned_packages() -> None:
    assert {name: (entry["version"], entry["integrity"]) for name, entry in RECORD["packages"].items()} == PACKAGES
    named = {
        source for values in RECORD["values"].values() for stated in values.values() for sources in stated.values() for source in sources
    }
    assert {package for package in PACKAGES if any(source.startswith(f"{package}/") for source in named)} == set(PACKAGES)
    assert {network.chain_id for network in NETWORKS} == set(NAMES)


def test_the_page_states_how_many_values_two_packages_agree_on() -> None:
    counts = []
    for network in NETWORKS:
        for key, value in values_of(network).items():
            if key not in CHOICES:
                sources = RECORD["values"][network.name].get(key, {}).get(value, [])
                counts.append(sum(any(source.startswith(f"{package}/") for source in sources) for package in PACKAGES))
    twice = sum(count > 1 for count in counts)
    never = counts.count(0)
    assert f"{len(counts)} values: {twice} by two packages or more, {never} by none" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_page__has_each_network_and_every_disputed_value(network: Network) -> None:
    text = PAGE.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {network.name} |"))
    assert f"| {network.block_ms / 1000:g} s | {network.finality} |" in row
    assert f"| {network.base_fee_ceiling_gwei:,} gwei |" in row
    values = values_of(network)
    assert not [key for name, key in DISPUTED if name == network.name and f"`{values[key]}`" not in text]


def test_the_page_states_the_typical_fees_of_each_network() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Typical fees")[2]
    for network in NETWORKS:
        quiet, ordinary, busy = (f"{wei / 10**9:g}" for wei in network.fees.gas_prices_wei)
        data_fee, dollars = (f"{number:,}" for number in (network.fees.data_fee_wei // 10**9, float(network.fees.native_usd)))
        row = f"| {network.name} | {quiet} / {ordinary} / {busy} | {network.fees.priority_fee_wei / 10**9:g} | {data_fee} |"
        assert f"{row} {dollars.removesuffix('.0')} |" in text


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_addresses_have_their_checksum(network: Network) -> None:
    addresses = [value for value in values_of(network).values() if value.startswith("0x") and len(value) == 42]
    addresses += [token.address for token in network.tokens]
    assert addresses == [to_checksum_address(address) for address in addresses]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_network_holds_together(network: Network) -> None:
    symbols = [token.symbol for token in network.tokens]
    assert len(set(symbols)) == len(symbols)
    assert network.tokens[0].address == network.wrapped_native
    assert network.tokens[0].is_hub
    assert {token.priced_as for token in network.tokens} - {None} == set(network.feeds)
    assert {token.decimals for token in network.tokens} <= {6, 8, 18}
    assert network.private_endpoint is None or (network.private_endpoint.startswith("https://") and not network.is_sequenced)
    assert network.is_sequenced == (data_fee_kind(network.chain_id) is not DataFeeKind.PLAIN)
    assert {**OP_STACK_CHAINS, **ARBITRUM_CHAINS, **PLAIN_CHAINS}[network.chain_id].startswith(network.title)
    assert len({venue.kind for venue in network.venues}) == len(network.venues)


def test_names_and_chain_ids_are_single() -> None:
    assert len(BY_NAME) == len({network.chain_id for network in NETWORKS}) == len(NETWORKS)


def test_preset__has_tradable_venues_and_ours_apart() -> None:
    kinds = {
        name: tuple([venue["kind"] for venue in venues] for venues in (preset.venues, preset.untraded_venues))
        for name, preset in PRESETS.items()
    }
    with_pairs = {"ethereum", "unichain"}
    native = ["uniswap_v4", "uniswap_v4_native"]
    assert kinds == {
        name: (["uniswap_v2", "uniswap_v3"], native)
        if name in with_pairs
        else (["uniswap_v3"], ["uniswap_v2", *native, *(["pancake_v3"] if name == "bnb" else [])])
        for name in BY_NAME
    }
    for preset in PRESETS.values():
        for venue in (*preset.venues, *preset.untraded_venues):
            VenueTable.model_validate(venue)


@pytest.mark.parametrize(
    ("name", "window_s", "observations"),
    [
        pytest.param("ethereum", 1800, 151, id="Ethereum"),
        pytest.param("base", 1800, 901, id="Base"),
        pytest.param("arbitrum", 1800, 1801, id="Arbitrum"),
        pytest.param("bnb", 1800, 1801, id="BNB chain"),
        pytest.param("unichain", 1, 2, id="one second"),
        pytest.param("ethereum", 13, 3, id="part of a block"),
    ],
)
def test_twap__needs_an_observation_a_block_or_second(name: str, window_s: int, observations: int) -> None:
    assert required_observations(BY_NAME[name].chain_id, window_s) == observations


def test_a_token_without_a_feed_has_none() -> None:
    assert all(BY_NAME["unichain"].feed_of(token) is None for token in BY_NAME["unichain"].tokens)
