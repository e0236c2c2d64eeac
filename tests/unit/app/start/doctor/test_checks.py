"""Rows of `trimtab doctor` at their limits, with a context that holds what each check asks for."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.app.documents.owner import FAIL, OK, WARN
from agent.app.start.doctor.checks import (
    _config_check,
    _contract_checks,
    _gas_and_head_checks,
    _holding_checks,
    _key_check,
    _operator_check,
)
from agent.app.start.doctor.endpoint_checks import EndpointProbe, has_enough_operators, outvoted_endpoints
from agent.config.load import validated_config
from agent.config.loaded import LoadedConfig
from agent.config.variables import Variables
from agent.errors import EXIT_RETRYABLE, EXIT_USAGE
from agent.model import EMPTY_CODE_HASH, NO_CODE_HASH, CodeHash, Holding, UnreadableItem
from tests.support import lp_worlds
from tests.support.builders import NOW_S, OWNER, address, snapshot, step_input, token, with_snapshot, without_feed
from tests.support.configs.samples import config_text
from tests.support.keyrings import MemoryKeyring, using

ROUTER = address("router")
POOL = address("pool")
CODE_HASH, OTHER_HASH = ("0x" + digit * 64 for digit in "12")
WRAPPED = token("WETH").address


def probe(operator: str, state: str) -> EndpointProbe:
    endpoint: Any = SimpleNamespace(operator=operator)
    return EndpointProbe(endpoint, 5 if state == "works" else None, "", is_lagging=state == "lags")


@pytest.mark.parametrize(
    ("states", "min_operators", "is_enough"),
    [
        (["works", "works"], 2, True),
        (["works", "fails"], 2, False),
        (["works", "lags"], 1, False),
        (["works", "works", "lags"], 2, True),
        (["works", "works", "lags", "lags"], 2, False),
    ],
    ids=["both", "one failed", "one of two lags", "one of three lags", "two of four lag"],
)
def test_operators__that_work_are_a_quorum_of_all_that_answer(states: list[str], min_operators: int, is_enough: bool) -> None:
    probes = [probe(str(number), state) for number, state in enumerate(states)]
    assert has_enough_operators(probes, min_operators) is is_enough


def test_outvoted_endpoints__are_no_tokens() -> None:
    items = (UnreadableItem("endpoint", "alpha", "it differs"), UnreadableItem("decimals", WRAPPED, "failed"))
    assert list(outvoted_endpoints(snapshot(unreadable_items=items))) == [("alpha", "it differs")]


def gas_context(now_s: int = NOW_S, top_up_wei: int | None = 5, floor_wei: int | None = 100, is_safe: bool = False) -> Any:
    limits = SimpleNamespace(native_floor_wei=floor_wei, native_top_up_wei=top_up_wei, head_age_s=60)
    clock = SimpleNamespace(now_s=lambda: now_s)
    config = SimpleNamespace(wallet=SimpleNamespace(safe=is_safe))
    return SimpleNamespace(limits=limits, portfolio=SimpleNamespace(wrapped_native=WRAPPED), clock=clock, config=config)


@pytest.mark.parametrize(
    ("native_wei", "wrapped_raw", "top_up_wei", "state"),
    [(101, 0, None, OK), (100, 1, 5, WARN), (1, 1, 5, WARN), (0, 1, 5, FAIL), (100, 0, 5, FAIL), (100, 1, None, FAIL)],
    ids=["above the floor", "at the floor", "one wei", "nothing for the top-up's gas", "nothing to unwrap", "no top-up"],
)
def test_gas_money__below_its_floor_fails_unless_unwrappable(native_wei: int, wrapped_raw: int, top_up_wei: int | None, state: str) -> None:
    balances = snapshot([Holding(WRAPPED, wrapped_raw)], native_wei=native_wei)
    (row,) = _gas_and_head_checks(gas_context(top_up_wei=top_up_wei), balances)
    assert row.state == state


@pytest.mark.parametrize(("floor_wei", "is_safe", "state"), [(None, True, OK), (None, False, FAIL), (100, True, FAIL)], ids=str)
def test_gas_money__is_not_needed_by_a_safe_without_a_floor(floor_wei: int | None, is_safe: bool, state: str) -> None:
    (row,) = _gas_and_head_checks(gas_context(floor_wei=floor_wei, is_safe=is_safe), snapshot(native_wei=0))
    assert row.state == state


@pytest.mark.parametrize(("age_s", "checks"), [(60, ["gas money"]), (61, ["gas money", "head"])])
def test_head__older_than_its_limit_is_worth_another_try(age_s: int, checks: list[str]) -> None:
    rows = list(_gas_and_head_checks(gas_context(NOW_S + age_s), snapshot()))
    assert [row.check for row in rows] == checks
    assert all(row.exit_code == EXIT_RETRYABLE for row in rows if row.check == "head")


def contract_context(pins: dict[str, str]) -> Any:
    trust = SimpleNamespace(pins=lambda: pins)
    return SimpleNamespace(
        execution=SimpleNamespace(pinned=(ROUTER,)), pools=(SimpleNamespace(contract=POOL),), store=SimpleNamespace(trust=trust)
    )


@pytest.mark.parametrize(
    ("pins", "hashes", "rows"),
    [
        ({ROUTER: CODE_HASH, POOL: CODE_HASH}, (CODE_HASH, CODE_HASH), [("trust", OK)]),
        ({ROUTER: CODE_HASH}, (CODE_HASH, CODE_HASH), [("trust", WARN)]),
        ({ROUTER: CODE_HASH, POOL: OTHER_HASH}, (CODE_HASH, CODE_HASH), [("trust", FAIL)]),
        ({ROUTER: CODE_HASH, POOL: CODE_HASH, OWNER: OTHER_HASH}, (CODE_HASH, CODE_HASH), [("trust", OK)]),
        ({ROUTER: CODE_HASH, POOL: NO_CODE_HASH}, (CODE_HASH, NO_CODE_HASH), [("contracts", FAIL), ("trust", OK)]),
        ({ROUTER: CODE_HASH, POOL: EMPTY_CODE_HASH}, (CODE_HASH, EMPTY_CODE_HASH), [("contracts", FAIL), ("trust", OK)]),
    ],
    ids=["pinned", "pool not pinned", "code changed", "pin of another contract", "no account", "no code"],
)
def test_contracts__have_the_code_that_was_pinned(pins: dict[str, str], hashes: tuple[str, str], rows: list[tuple[str, str]]) -> None:
    code_hashes = (CodeHash(ROUTER, hashes[0]), CodeHash(POOL, hashes[1]))
    check_results = list(_contract_checks(contract_context(pins), snapshot(code_hashes=code_hashes)))
    assert [(row.check, row.state) for row in check_results if row.check != "pools"] == rows


@pytest.mark.parametrize("is_provided", [False, True], ids=["nothing", "all in a position"])
def test_portfolio__is_empty_only_without_positions(is_provided: bool) -> None:
    step = lp_worlds.world([lp_worlds.paired(10_000)] if is_provided else [])
    step = with_snapshot(step, holdings=tuple(replace(holding, raw=0) for holding in step.snapshot.holdings))
    store = SimpleNamespace(trust=SimpleNamespace(pins=dict))
    context: Any = SimpleNamespace(portfolio=step.portfolio, pools=(), store=store)
    assert [row.state for row in _holding_checks(context, step) if row.check == "portfolio"] == [FAIL] * (not is_provided)


def test_contracts__outvoted_endpoint_has_no_second_row() -> None:
    items = (UnreadableItem("endpoint", "alpha", "it differs"),)
    rows = _contract_checks(contract_context({}), snapshot(unreadable_items=items))
    assert [row.check for row in rows if row.check == "endpoint"] == []


def loaded_config(path: Path, *, is_local: bool = False, **wallet: object) -> Any:
    endpoints = [SimpleNamespace(url="https://rpc.example", operator="a"), SimpleNamespace(url=None, operator="a")]
    chain = SimpleNamespace(rpc=endpoints, is_local=is_local, min_operators=2)
    table = SimpleNamespace(mode="send", address=OWNER, signer_url_env=None, keyring=None, **wallet)
    return SimpleNamespace(path=path, digest="0" * 64, keystore_path=path, config=SimpleNamespace(chain=chain, wallet=table))


@pytest.mark.parametrize(
    ("mode", "is_local", "state"),
    [(0o600, False, OK), (0o640, False, WARN), (0o604, False, WARN), (0o644, True, OK)],
    ids=["owner", "group", "others", "local chain"],
)
def test_config__with_urls_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, is_local: bool, state: str) -> None:
    path = tmp_path / "trimtab.toml"
    path.touch()
    path.chmod(mode)
    assert _config_check(loaded_config(path, is_local=is_local)).state == state


@pytest.mark.parametrize(
    ("mode", "keystore_address", "state"),
    [(0o600, OWNER[2:].upper(), OK), (0o600, OWNER.lower(), OK), (0o640, OWNER, FAIL), (0o600, ROUTER, FAIL)],
    ids=["upper case", "lower case", "group may read", "another wallet"],
)
def test_keystore__is_the_wallets_and_private(tmp_path: Path, mode: int, keystore_address: str, state: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(f'{{"address": "{keystore_address}"}}', encoding="utf-8")
    path.chmod(mode)
    assert _key_check(loaded_config(path)).state == state


@pytest.mark.parametrize(
    ("variables", "state", "finding"),
    [({}, WARN, "variable BOT_KEY is not set"), ({"BOT_KEY": "0x1"}, OK, "variable BOT_KEY")],
    ids=["not set", "set"],
)
def test_key__of_a_variable_is_looked_up(tmp_path: Path, variables: dict[str, str], state: str, finding: str) -> None:
    config = config_with_key({"key_env": "BOT_KEY"}, tmp_path, Variables(variables))
    row = _key_check(config)
    assert (row.state, row.finding) == (state, finding)


def test_key__of_a_keyring_is_looked_up(tmp_path: Path) -> None:
    config = config_with_key({"keyring": "trimtab/main"}, tmp_path, Variables())
    backend = MemoryKeyring()
    with using(backend):
        missing_row = _key_check(config)
        backend.kept["trimtab", "main"] = "0x1"
        present_row = _key_check(config)
    assert (missing_row.state, missing_row.finding) == (WARN, "trimtab/main is not in the keyring")
    assert present_row.state == OK


def config_with_key(wallet: dict[str, str], folder: Path, variables: Variables) -> LoadedConfig:
    """The template's config, with this key source of its wallet."""
    toml_values = tomllib.loads(config_text())
    toml_values["wallet"] = {"address": OWNER, **wallet}
    config = validated_config(toml_values, "config", variables)
    return LoadedConfig(config, folder / "trimtab.toml", "0" * 64, toml_values, variables=variables)


def test_operators__are_counted_and_not_endpoints(tmp_path: Path) -> None:
    row = _operator_check(loaded_config(tmp_path))
    assert (row.state, row.exit_code) == (FAIL, EXIT_USAGE)


@pytest.mark.parametrize(("pins", "state"), [((), WARN), ((POOL,), FAIL)], ids=["before trust", "after trust"])
def test_asset_without_price__fails_once_the_contracts_of_its_pools_are_pinned(pins: tuple[str, ...], state: str) -> None:
    step = without_feed(step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 1_000, "USDC": 1_000}), "WETH")
    pool_of_v4 = SimpleNamespace(address="0x" + "4" * 64, contract=POOL)  # a PoolId, and the manager
    store = SimpleNamespace(trust=SimpleNamespace(pins=lambda: dict.fromkeys(pins, CODE_HASH)))
    context: Any = SimpleNamespace(portfolio=step.portfolio, pools=(pool_of_v4,), store=store)
    states = {row.check: row.state for row in _holding_checks(context, step)}
    assert states["token WETH"] == state
