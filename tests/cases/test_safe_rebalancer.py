"""Approvals and a rebalance of five assets by our own Rebalancer as one call of a real Safe: proposed, judged, signed, executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import app as api
from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress
from agent.artifacts import own_artifact
from agent.chain.tokens import encode_approve
from agent.config.loaded import LoadedConfig
from agent.errors import Refused
from agent.execution.executor import ProposingExecutor
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState, LegPlace, Plan, Portfolio
from agent.ports import Approval
from agent.signing.batches import BATCH_CONTRACT, BatchedCall, decode_batch, encode_batch
from agent.signing.calldata import Approve, RebalanceCall, data_bytes, decode
from agent.units import floor_int
from agent.venues import composer
from agent.venues.drafts import TxDraft
from tests.support.agents import FIVE, reopened_agent, require_rebalance, yes
from tests.support.on_chain.proposals import proposal, rounds, safe_of
from tests.support.on_chain.safe_proposals import EXECUTOR, FIRST, hand_signature, open_proposal, sign_and_send
from tests.support.wallets import SafeWallet

LOPSIDED_USD = {"WETH": 51_234, "WBTC": 333, "USDC": 0, "USDT": 21_000, "LINK": 17_433}


def lopsided_safe(chain: LocalChain, folder: Path) -> tuple[SafeWallet, LoadedConfig]:
    """A Safe that makes batches and trades five assets by the Rebalancer, far from their targets."""
    safe, loaded = safe_of(chain, folder, ("execution.router", "rebalancer"), makes_batches=True, targets=FIVE)
    for symbol, value in LOPSIDED_USD.items():
        coins = Fraction(value) / chain.deployed_world.prices_usd[symbol]
        chain.set_balance(symbol, floor_int(coins * 10 ** chain.tokens[symbol].decimals), owner=safe.address)
    return safe, loaded


@pytest.fixture
def scene(anvil_chain: LocalChain, tmp_path: Path) -> Iterator[tuple[Agent, SafeWallet]]:
    """An agent whose Safe, with two of three owners, has a batch that waits."""
    safe, loaded = lopsided_safe(anvil_chain, tmp_path)
    with reopened_agent(anvil_chain, loaded) as agent:
        proposal(agent)
        yield agent, safe


def balances(safe: SafeWallet) -> dict[str, int]:
    return {token.address: safe.chain.balance(symbol, safe.address) for symbol, token in safe.chain.tokens.items()}


def allowances(safe: SafeWallet) -> dict[str, int]:
    """Allowances of the Safe for the Rebalancer, above zero."""
    spender = safe.chain.addresses.rebalancer
    amounts = {s: int(safe.chain.token_contract(s).functions.allowance(safe.address, spender).call()) for s in safe.chain.tokens}
    return {symbol: raw for symbol, raw in amounts.items() if raw}


def spent_by(plan: Plan) -> dict[str, int]:
    """What the plan takes from the wallet, by token."""
    spent: dict[str, int] = {}
    for leg in plan.legs:
        if leg.source is LegPlace.WALLET:
            spent[leg.token_in] = spent.get(leg.token_in, 0) + leg.amount_in_raw
    return spent


def test_batch__five_assets__two_owners__balances_are_as_planned(scene: tuple[Agent, SafeWallet]) -> None:
    agent, safe = scene
    rebalancer = safe.chain.addresses.rebalancer
    journal = agent.context.store.journal
    (intent,) = journal.open_intents()
    plan = journal.grant(intent.id).plan
    assert plan is not None
    *approvals, trade = decode_batch(intent.tx.data)
    spent = spent_by(plan)
    changes = {token: raw for token, raw in plan.wallet_changes().items() if raw}
    assert changes.keys() == {safe.chain.tokens[symbol].address for symbol in FIVE}
    assert {call.to: decode(call.data) for call in approvals} == {token: Approve(rebalancer, raw) for token, raw in spent.items()}
    assert len(approvals) == len(spent)
    assert trade.to == rebalancer
    assert isinstance(decode(trade.data), RebalanceCall)
    document = open_proposal(agent)
    assert (document["to"], document["function"], document["recipients"]) == (BATCH_CONTRACT, "multiSend", [safe.address])
    trade_document = document["calls"][-1]
    assert (trade_document["to"], trade_document["function"], trade_document["spender"]) == (rebalancer, "rebalance", None)
    assert trade_document["recipients"] == [safe.address]
    words = document["in_words"]
    assert not [line for line in words if "WARNING" in line or "unknown" in line], words
    bound_lines = [line for line in words if line.startswith(("  this Safe spends at most", "  this Safe receives at least"))]
    assert len(bound_lines) == len(FIVE)
    sign_and_send(agent, FIRST)
    with pytest.raises(Refused, match="1 of 2 signatures"):
        api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)
    api.collect_signatures(agent, [hand_signature(agent, 7)])
    before = balances(safe)
    assert api.execute_proposal(agent, EXECUTOR, send=True, confirm=yes)["outcome"] == "executed"
    after = balances(safe)
    assert {token: after[token] for token, _ in plan.holdings_after} == dict(plan.holdings_after)
    assert {token: raw - before[token] for token, raw in after.items() if raw != before[token]} == changes
    assert allowances(safe) == {}
    assert not any(safe.chain.balance(symbol, rebalancer) for symbol in safe.chain.tokens)
    assert agent.rebalance(send=True, confirm=yes).kind is OutcomeKind.HOLD
    (final,) = journal.intents()
    assert (final.kind, final.state, safe.nonce()) == (IntentKind.SWAP, IntentState.FINAL, 1)
    assert journal.unbooked_intents() == ()


def judge(agent: Agent, calls: Sequence[BatchedCall]) -> str | None:
    """Return the rule by which the Safe's signer refuses the proposal with these calls in place of its own; None if it signs."""
    (intent,) = agent.context.store.journal.open_intents()
    tx = replace(intent.tx, data=encode_batch(calls))
    grant = agent.context.store.journal.grant(intent.id)
    with wiring.open_transactor(agent.context, yes, ignore_progress, signs=False) as transactor:
        assert isinstance(transactor.executor, ProposingExecutor)
        try:
            transactor.executor.external_signer.require_signable(tx, grant)
        except Refused as refusal:
            return refusal.guards[0]
    return None


def test_batch__of_another_contract_or_spender__is_refused(scene: tuple[Agent, SafeWallet]) -> None:
    """The other contract is a second Rebalancer of the same code."""
    agent, safe = scene
    (intent,) = agent.context.store.journal.open_intents()
    *approvals, trade = decode_batch(intent.tx.data)
    foreign = safe.chain.deploy(own_artifact("Rebalancer"))

    def approved_for(spender: str) -> list[BatchedCall]:
        return [BatchedCall(call.to, data_bytes(encode_approve(spender, call_raw(call)))) for call in approvals]

    router = safe.chain.addresses.swap_router_02
    for calls, rule in (
        ([*approvals, trade], None),
        ([*approvals, replace(trade, to=foreign)], "signer.spender"),
        ([*approved_for(foreign), replace(trade, to=foreign)], "signer.spender"),
        ([replace(trade, to=foreign)], "signer.batch"),
        ([*approved_for(foreign), trade], "signer.spender"),
        ([*approved_for(router), trade], "signer.spender"),
        ([*approved_for(router), replace(trade, to=router)], "signer.spender"),
        ([*approvals[:-1], *approved_for(foreign)[-1:], trade], "signer.spender"),
        ([*approvals, replace(approvals[0], to=trade.to), trade], "signer.contract"),
        ([*approvals, *approvals[:1], trade], "signer.batch"),
    ):
        assert judge(agent, calls) == rule, calls
    assert safe.nonce() == 0


def call_raw(approval: BatchedCall) -> int:
    call = decode(approval.data)
    assert isinstance(call, Approve)
    return call.raw


def test_batch__of_a_foreign_rebalancer__is_never_proposed(
    anvil_chain: LocalChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe, loaded = lopsided_safe(anvil_chain, tmp_path)
    foreign = anvil_chain.deploy(own_artifact("Rebalancer"))
    batched = composer._batched_draft

    def batched_for_foreign(portfolio: Portfolio, contract: str, approvals: Sequence[Approval], trade: TxDraft) -> TxDraft:
        return batched(portfolio, contract, [replace(approval, spender=foreign) for approval in approvals], replace(trade, to=foreign))

    monkeypatch.setattr(composer, "_batched_draft", batched_for_foreign)
    with reopened_agent(anvil_chain, loaded) as agent:
        outcome = require_rebalance(agent, OutcomeKind.REFUSED)
        assert [verdict.guard for verdict in outcome.refusal_verdicts] == ["signer.spender"]
        assert agent.context.store.journal.intents() == ()
        assert not (tmp_path / "proposals").exists()
        assert safe.nonce() == 0


def test_batch__earlier_allowances__are_reset_or_used_and_revoked(anvil_chain: LocalChain, tmp_path: Path) -> None:
    """USDT has one unit left, too little, which it must not change; WETH has more than enough."""
    safe, loaded = lopsided_safe(anvil_chain, tmp_path)
    rebalancer = anvil_chain.addresses.rebalancer
    anvil_chain.node.ask([("anvil_impersonateAccount", [safe.address]), ("anvil_setBalance", [safe.address, hex(10**18)])])
    for symbol, raw in (("USDT", 1), ("WETH", 2**255)):
        anvil_chain.send(anvil_chain.token_contract(symbol).functions.approve(rebalancer, raw), safe.address, gas=100_000)
    with reopened_agent(anvil_chain, loaded) as agent:
        usdt_reset, batch, weth_reset = rounds(agent, safe.execute)
        at = {symbol: token.address for symbol, token in anvil_chain.tokens.items()}
        assert usdt_reset["safe_tx"]["to"] == at["USDT"]
        assert decode(usdt_reset["safe_tx"]["data"]) == Approve(rebalancer, 0)
        *approvals, trade = decode_batch(batch["safe_tx"]["data"])
        assert ({call.to for call in approvals}, trade.to) == ({at["LINK"], at["USDT"]}, rebalancer)
        assert weth_reset["safe_tx"]["to"] == at["WETH"]
        assert decode(weth_reset["safe_tx"]["data"]) == Approve(rebalancer, 0)
    assert allowances(safe) == {}
