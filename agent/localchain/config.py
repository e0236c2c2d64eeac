"""Text of the trimtab.toml of an embedded chain, complete for every command."""

from __future__ import annotations

from agent.model import LIMITS_IN_CONFIG_ORDER

IN_PROCESS_URL = "eth-tester://in-process"
"""URL in the config of an in-process chain; the program that loads the config provides the
transport.
"""

ASSET_TEMPLATE = """[[portfolio.assets]]
symbol = "{symbol}"
address = "{address}"
target = "{target}"
reserve = "0"
feed = "{feed}"
"""

CONFIG_MARKER = "# An embedded chain of trimtab: public test keys, worthless coins.\n"
"""First line of the config, which distinguishes it from the config of a real wallet."""

CONFIG_TEMPLATE = """[chain]
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
short_window = "5m"
feed_max_age = "25h"

[[venues]]
kind = "{kind.V2}"
factory = "{at.v2_factory}"
router = "{at.v2_router}"
[[venues]]
kind = "{kind.V3}"
factory = "{at.v3_factory}"
router = "{at.swap_router_02}"
quoter = "{at.quoter_v2}"
quoter_v1 = "{at.quoter_v1}"
position_manager = "{at.position_manager}"
fee_tiers = [100, 500, 3000, 10000]

[policy]
trigger = {{ kind = "tracking", strictness = "normal" }}
cooldown = "1h"
confirm_blocks = 0
jitter = "off"

[limits]
{limits}

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


_OMITTED_LIMITS = ("total_loss", "native_top_up", "balance_jump_wait", "deposit_auto")
_CHANGED_LIMITS = {"first_purchase": "1m", "payout_per_day": "100000"}
"""Values that differ from those of a new config."""
LIMITS_TEXT = "\n".join(
    f'{limit.key} = "{_CHANGED_LIMITS.get(limit.key, limit.initial_value)}"'
    for limit in LIMITS_IN_CONFIG_ORDER
    if limit.key not in _OMITTED_LIMITS
)
