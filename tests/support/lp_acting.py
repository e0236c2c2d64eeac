"""Does a plan's actions by calling the contracts directly and says what they moved: a witness that knows nothing of our encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from web3.logs import DISCARD

from agent.artifacts import npm_artifact
from agent.localchain import LocalChain
from agent.localchain.chain import FAR_FUTURE_S
from agent.localchain.market import POSITION_MANAGER, V2_PAIR, V2_ROUTER
from agent.model import Collect, LpAction, Provide, Withdraw
from tests.support.liquidity import UINT128_MAX, manager


@dataclass(frozen=True, slots=True)
class Done:
    """Base units of (token0, token1) that the wallet got (or gave, negative), liquidity by the events, gas of all transactions."""

    moved: tuple[int, int]
    liquidity: int
    gas: int
    token_id: int | None


def act(chain: LocalChain, action: LpAction) -> Done:
    """Approves what is needed and does the action with its own minimums."""
    symbols = {token.address: symbol for symbol, token in chain.tokens.items()}
    tokens = [chain.token_contract(symbols[address]) for address in (action.token0, action.token1)]
    spender = chain.addresses.v2_router if action.venue == "uniswap_v2" else action.contract
    if isinstance(action, Provide):
        for token, raw in zip(tokens, action.desired_raw, strict=True):
            _send(chain, token.functions.approve(spender, raw))
    before = _balances(chain, tokens)
    match action:
        case Provide(token_id=None, ticks=None):
            liquidity, gas, token_id = _add_v2(chain, action)
        case Provide():
            liquidity, gas, token_id = _add_v3(chain, action)
        case Withdraw(token_id=None):
            pair = chain.contract(action.pool, npm_artifact(V2_PAIR)).functions
            _send(chain, pair.approve(spender, action.liquidity))
            router = chain.contract(spender, npm_artifact(V2_ROUTER)).functions
            call = router.removeLiquidity(
                action.token0, action.token1, action.liquidity, *action.min_raw, chain.wallet.address, FAR_FUTURE_S
            )
            liquidity, gas, token_id = action.liquidity, _send(chain, call), None
        case Withdraw():
            take = manager(chain).decreaseLiquidity((action.token_id, action.liquidity, *action.min_raw, FAR_FUTURE_S))
            liquidity, gas, token_id = action.liquidity, _multicall(chain, [take, _all_of(chain, action.token_id)]), action.token_id
        case Collect():
            liquidity, gas, token_id = 0, _multicall(chain, [_all_of(chain, action.token_id)]), action.token_id
    after = _balances(chain, tokens)
    return Done((after[0] - before[0], after[1] - before[1]), liquidity, gas, token_id)


def expected(action: LpAction) -> tuple[int, int]:
    """What the action says that the wallet gets, or gives."""
    match action:
        case Provide():
            return -action.amounts_raw[0], -action.amounts_raw[1]
        case Withdraw():
            return action.amounts_raw[0] + action.fees_raw[0], action.amounts_raw[1] + action.fees_raw[1]
        case Collect():
            return action.fees_raw


def _add_v2(chain: LocalChain, action: Provide) -> tuple[int, int, None]:
    pair = chain.contract(action.pool, npm_artifact(V2_PAIR)).functions
    router = chain.contract(chain.addresses.v2_router, npm_artifact(V2_ROUTER)).functions
    before = pair.balanceOf(chain.wallet.address).call()
    amounts = (*action.desired_raw, *action.min_raw)
    gas = _send(chain, router.addLiquidity(action.token0, action.token1, *amounts, chain.wallet.address, FAR_FUTURE_S))
    return pair.balanceOf(chain.wallet.address).call() - before, gas, None


def _add_v3(chain: LocalChain, action: Provide) -> tuple[int, int, int]:
    if action.token_id is None:
        assert action.ticks is not None
        head = (action.token0, action.token1, action.fee_pips, *action.ticks)
        call = manager(chain).mint((*head, *action.desired_raw, *action.min_raw, chain.wallet.address, FAR_FUTURE_S))
    else:
        call = manager(chain).increaseLiquidity((action.token_id, *action.desired_raw, *action.min_raw, FAR_FUTURE_S))
    receipt = chain.w3.eth.get_transaction_receipt(chain.send(call, chain.wallet.address, gas=1_000_000))
    events = chain.contract(action.contract, npm_artifact(POSITION_MANAGER)).events.IncreaseLiquidity().process_receipt(receipt, DISCARD)
    [told] = [event["args"] for event in events]
    return int(told["liquidity"]), int(receipt["gasUsed"]), int(told["tokenId"])


def _all_of(chain: LocalChain, token_id: int | None) -> Any:
    return manager(chain).collect((token_id, chain.wallet.address, UINT128_MAX, UINT128_MAX))


def _multicall(chain: LocalChain, calls: list[Any]) -> int:
    return _send(chain, manager(chain).multicall([bytes.fromhex(call._encode_transaction_data()[2:]) for call in calls]))


def _send(chain: LocalChain, call: Any) -> int:
    return int(chain.w3.eth.get_transaction_receipt(chain.send(call, chain.wallet.address, gas=1_000_000))["gasUsed"])


def _balances(chain: LocalChain, tokens: list[Any]) -> tuple[int, int]:
    one, two = (token.functions.balanceOf(chain.wallet.address).call() for token in tokens)
    return int(one), int(two)
