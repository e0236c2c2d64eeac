"""The trimtab.toml of an embedded chain: every key, ready for every command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.localchain.accounts import WALLET

if TYPE_CHECKING:
    from agent.localchain.chain import LocalChain

IN_PROCESS_URL = "eth-tester://in-process"
"""Stands in the file where there is no HTTP address; whoever loads it brings the transport."""

_ASSET = """[[portfolio.assets]]
symbol = "{symbol}"
address = "{address}"
target = "{target}"
reserve = "0"
feed = "{feed}"
"""

FIRST_LINE = "# An embedded chain of trimtab: public test keys, worthless coins.\n"
"""By which a config of ours is told from one of a real wallet."""

_TEMPLATE = """[chain]
chain_id = {chain_id}
confirmations = 1
wrapped_native = "{at.weth}"
[[chain.rpc]]
url = "{url}"
operator = "local"

[wallet]
address = "{wallet}"
test_account = {account}
payout_addresses = []

[portfolio]
numeraire = "{numeraire}"
max_live_value = "100000"
{assets}
[reference]
kind = ["feed", "twap"]
twap_window = "30m"
feed_max_age = "25h"

[venues.uniswap_v2]
factory = "{at.v2_factory}"
router = "{at.v2_router}"
[venues.uniswap_v3]
factory = "{at.v3_factory}"
router = "{at.swap_router_02}"
quoter = "{at.quoter_v2}"
quoter_v1 = "{at.quoter_v1}"
position_manager = "{at.position_manager}"
fee_tiers = [100, 500, 3000, 10000]

[policy]
trigger = {{ kind = "threshold", relative = "10%" }}
destination = "target"
cooldown = "1h"
confirm_blocks = 0
jitter = "off"

[limits]
price_impact = "1%"
slippage = "0.3%"
plan_cost = "0.5%"
turnover = "30%"
daily_turnover = "60%"
daily_loss = "1%"
oracle_deviation = "1.5%"
second_quote_deviation = "0.5%"
depeg = "2%"
gas_price = "60 gwei"
gas_per_day = "0.05"
native_floor = "0.05"
head_age = "90s"
min_trade = "10"
pool_min_value = "50000"
impermanent_loss = "1%"
lp_max_weight = "25%"
balance_jump = "2%"
first_purchase = "1m"
payout_per_day = "100000"
token_screen = "on"

[execution]
router = "{router}"
rebalancer = "{at.rebalancer}"
deadline = "90s"
submit_url = ""
style = "market"

[lp]
volatility = "60%"
horizon = "30d"

[store]
url = "{store_url}"
"""


def config_text(chain: LocalChain, store_url: str, targets: Mapping[str, str], router: str) -> str:
    """See LocalChain.config_text."""
    assets = "".join(
        _ASSET.format(symbol=symbol, address=chain.tokens[symbol].address, target=target, feed=chain.feeds[symbol])
        for symbol, target in targets.items()
    )
    return FIRST_LINE + _TEMPLATE.format(
        chain_id=chain.chain_id,
        at=chain.addresses,
        url=chain.url or IN_PROCESS_URL,
        wallet=chain.wallet.address,
        account=WALLET,
        numeraire=chain.world.numeraire,
        assets=assets,
        store_url=store_url,
        router=router,
    )
