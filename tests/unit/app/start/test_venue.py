"""Tests of agent/app/start/venue.py: doctor's rows about a venue on the chain, of which something was not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.app.documents.owner import FAIL, OK, WARN, CheckLine
from agent.app.start import venue
from agent.chain.lens import CallItem, CallStatus, LensAnswer
from agent.chain.tokens import UNREAD_ADDRESS
from agent.config.load import parse_config
from agent.config.tables.futures import PerpetualProtocolTable
from agent.model import CodeHash, ProxyImplementation
from agent.signing.calldata import selector
from tests.support.builders import address, snapshot, step_input
from tests.support.configs.futures import with_futures

UNREAD = CallStatus.FAILED
STEP = step_input()
PROXY, NEW, PINNED = (address(name) for name in ("proxy", "new", "pinned"))
CODE, OTHER_CODE = ("0x" + digit * 64 for digit in "12")


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def address_word(text: str) -> bytes:
    return word(int(text, 16))


def table() -> PerpetualProtocolTable:
    futures_table = parse_config(with_futures()).futures
    assert isinstance(futures_table, PerpetualProtocolTable)
    return futures_table


def rows_with(monkeypatch: pytest.MonkeyPatch, check: Any, answers: list[LensAnswer], *arguments: object) -> list[CheckLine]:
    """The rows of a check whose calls have these answers, in turn."""
    remaining_answers = iter(answers)

    def query_lens(_transport: object, calls: list[object]) -> list[LensAnswer]:
        return [next(remaining_answers) for _ in calls]

    monkeypatch.setattr(venue, "query_lens", query_lens)
    context = cast(Any, SimpleNamespace(transport=None))
    rows: Iterator[CheckLine] = check(context, *arguments)
    return list(rows)


LINKS = {
    ("clearing_house", "getVault()"): "vault",
    ("clearing_house", "getExchange()"): "exchange",
    ("clearing_house", "getAccountBalance()"): "account_balance",
    ("clearing_house", "getClearingHouseConfig()"): "config",
    ("clearing_house", "getDelegateApproval()"): "delegate_approval",
    ("exchange", "getMarketRegistry()"): "market_registry",
    ("vault", "getClearingHouse()"): "clearing_house",
    ("vault", "getAccountBalance()"): "account_balance",
}
"""The key whose address each view of a contract returns, as Perpetual Protocol v2 links its contracts."""


def link_rows(monkeypatch: pytest.MonkeyPatch, changes: Mapping[tuple[str, str], LensAnswer]) -> list[CheckLine]:
    """The rows of the check of links where these views have other answers."""
    futures_table = table()
    answers = {link: address_word(getattr(futures_table, key)) for link, key in LINKS.items()} | changes
    answer_by_call = {(int(getattr(futures_table, contract), 16), selector(view)): answer for (contract, view), answer in answers.items()}

    def query_lens(_transport: object, items: list[CallItem]) -> list[LensAnswer]:
        return [answer_by_call[int(item.target, 16), item.calldata] for item in items]

    monkeypatch.setattr(venue, "query_lens", query_lens)
    return list(venue._address_checks(cast(Any, SimpleNamespace(transport=None)), futures_table))


@pytest.mark.parametrize(
    ("changes", "state", "finding"),
    [
        pytest.param({}, OK, "8 links between the contracts agree", id="all agree"),
        pytest.param({("clearing_house", "getVault()"): UNREAD}, WARN, "could not be read: clearing_house.getVault()", id="one unread"),
        pytest.param(
            {("clearing_house", "getVault()"): UNREAD, ("exchange", "getMarketRegistry()"): UNREAD},
            WARN,
            "could not be read: clearing_house.getVault(), exchange.getMarketRegistry()",
            id="two unread",
        ),
        pytest.param(
            {("clearing_house", "getVault()"): UNREAD, ("clearing_house", "getExchange()"): address_word(NEW)},
            FAIL,
            f"clearing_house.getExchange() is {NEW}",
            id="one unread and one differs",
        ),
    ],
)
def test_links__of_contracts_differ_only_if_they_were_read(
    monkeypatch: pytest.MonkeyPatch, changes: dict[tuple[str, str], LensAnswer], state: str, finding: str
) -> None:
    ((_, row_state, row_finding, _),) = link_rows(monkeypatch, changes)
    assert row_state == state
    assert finding in row_finding
    assert UNREAD_ADDRESS not in row_finding


@pytest.mark.parametrize("link", LINKS, ids=".".join)
def test_link__that_differs_is_named(monkeypatch: pytest.MonkeyPatch, link: tuple[str, str]) -> None:
    ((_, state, finding, _),) = link_rows(monkeypatch, {link: address_word(NEW)})
    assert state == FAIL
    assert f"{'.'.join(link)} is {NEW}" in finding


COLLATERAL = STEP.portfolio.numeraire


@pytest.mark.parametrize(
    ("answers", "state", "finding"),
    [
        ([UNREAD, word(6), word(1)], WARN, "could not be read: the vault's collateral"),
        ([address_word(COLLATERAL.address), UNREAD, word(1)], WARN, "could not be read: the vault's decimals"),
        ([address_word(NEW), word(6), word(1)], FAIL, f"the vault's collateral is {NEW}"),
        ([address_word(COLLATERAL.address), word(18), word(1)], FAIL, "the vault uses 18 decimals"),
    ],
    ids=["address unread", "decimals unread", "another address", "other decimals"],
)
def test_collateral__differs_only_if_it_was_read(
    monkeypatch: pytest.MonkeyPatch, answers: list[LensAnswer], state: str, finding: str
) -> None:
    ((_, row_state, row_finding, _),) = rows_with(monkeypatch, venue._collateral_checks, answers, STEP.snapshot, STEP.portfolio, table())
    assert row_state == state
    assert finding in row_finding


@pytest.mark.parametrize(
    ("listed", "state", "finding"),
    [(UNREAD, WARN, "could not be read"), (word(0), FAIL, "does not list"), (word(1), OK, "listed, index by")],
    ids=["unread", "not listed", "listed"],
)
def test_market__is_unlisted_only_if_the_registry_was_read(
    monkeypatch: pytest.MonkeyPatch, listed: LensAnswer, state: str, finding: str
) -> None:
    markets = table().markets
    aggregators: list[LensAnswer] = [address_word(market.aggregator) for market in markets]
    rows = rows_with(monkeypatch, venue._market_checks, [listed] * len(markets) + 3 * aggregators, table())
    assert {row[1] for row in rows} == {state}
    assert all(finding in row[2] for row in rows)


@pytest.mark.parametrize(
    ("implementation", "code_hash", "pin", "state", "finding"),
    [
        (PINNED, CODE, (PINNED, CODE), OK, f"implementation {PINNED}, pinned"),
        (PINNED, CODE, None, WARN, f"implementation {PINNED} is not pinned"),
        (UNREAD_ADDRESS, "", (PINNED, CODE), WARN, "could not be read: the implementation"),
        (UNREAD_ADDRESS, "", None, WARN, "could not be read: the implementation"),
        (NEW, "", (PINNED, CODE), FAIL, f"implementation {NEW} differs from the pinned {PINNED}"),
        (PINNED, OTHER_CODE, (PINNED, CODE), FAIL, f"the code of implementation {PINNED} differs from the pinned one"),
        (PINNED, "", (PINNED, CODE), WARN, f"could not be read: the code of implementation {PINNED}"),
    ],
    ids=["pinned", "not pinned", "unread", "unread and not pinned", "another address", "other code", "code unread"],
)
def test_implementation__says_what_differs_from_its_pin(
    implementation: str, code_hash: str, pin: tuple[str, str] | None, state: str, finding: str
) -> None:
    reading = snapshot(
        implementations=(ProxyImplementation(PROXY, implementation),),
        code_hashes=(CodeHash(implementation, code_hash),) if code_hash else (),
    )
    trust = SimpleNamespace(implementations=lambda: {} if pin is None else {PROXY: pin})
    context = cast(Any, SimpleNamespace(store=SimpleNamespace(trust=trust)))
    ((name, row_state, row_finding, _),) = venue._implementation_checks(context, reading, {PROXY: "vault"})
    assert (name, row_state, row_finding) == ("proxy vault", state, finding)
