"""The commented config of `trimtab init`, and its portfolio templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Any

from agent.amm.lp.venues import LpVenue
from agent.config.networks import BASE, ORDERED_BY_SEQUENCER, Network
from agent.config.networks.presets import (
    ETHEREUM_PRESET,
    HOURLY_FEED_MAX_AGE,
    HOURLY_FEEDS,
    SEQUENCER_FEEDS,
    SEQUENCER_GRACE,
    Preset,
    TemplateAsset,
    starting_deviation_bps,
)
from agent.config.tables.limits import CEILINGS, LimitsTable, build_limits_from_table
from agent.config.tables.triggers import FUNCTION
from agent.config.writing.venues import venues_text
from agent.errors import ConfigError
from agent.foreign_text import read_toml
from agent.layers.config import TABLE_TEMPLATES
from agent.model import (
    LIMITS_IN_CONFIG_ORDER,
    AllocationMethod,
    Limits,
    LimitUnit,
    TighterDirection,
)
from agent.model.rollups import LOCAL_OP_STACK_ID
from agent.policy.triggers.rules import NOTATIONS
from agent.units import Token


@dataclass(frozen=True, slots=True)
class _DollarCaps:
    """Config lines of caps set in dollars, in a numeraire whose coin costs `dollars_per_coin`."""

    numeraire: str
    dollars_per_coin: Fraction

    def at_most(self, key: str, usd: int) -> str:
        """Return the line of a maximum, rounded down."""
        return self._line(key, usd, ROUND_FLOOR)

    def minimum_line(self, key: str, usd: int) -> str:
        """Return the line of a minimum, rounded up."""
        return self._line(key, usd, ROUND_CEILING)

    def _line(self, key: str, usd: int, rounding: str) -> str:
        """Return the line of a cap, rounded to two figures if converted from dollars."""
        coins = Decimal(usd * self.dollars_per_coin.denominator) / self.dollars_per_coin.numerator
        note = ""
        if self.dollars_per_coin != 1:
            rounding_unit = Decimal(1).scaleb(coins.adjusted() - 1)
            coins = coins.quantize(rounding_unit, rounding).normalize()
            note = f", {usd} dollars at {float(self.dollars_per_coin):.10g} each"
        return f'{key} = "{coins:f}"'.ljust(35) + f"# {self.numeraire}{note}"


def render_config(
    preset: Preset,
    wallet: str,
    assets: Sequence[TemplateAsset],
    hubs: Sequence[TemplateAsset],
    numeraire: str,
    rpc_envs: Sequence[tuple[str, str]],
    dollars_per_coin: Fraction = Fraction(1),
) -> str:
    """Render the commented config.

    `rpc_envs` are (environment variable, operator) pairs, since URLs are secrets and not written to
    the file. `dollars_per_coin` is the price of a coin of the numeraire, in which caps are written.
    """
    caps = _DollarCaps(numeraire, dollars_per_coin)
    rpc_tables = "\n".join(
        f'[[chain.rpc]]\nurl_env = "{variable}"      # the URL is secret and stays in the'
        f' environment\noperator = "{operator}"'
        for variable, operator in rpc_envs
    )
    return f"""\
# trimtab configuration. Every value that decides money is in this file; there are no hidden defaults.
# Check it with: trimtab doctor    Then pin the contracts with: trimtab trust

[chain]
chain_id = {preset.chain_id}
confirmations = 2                  # blocks until a transaction counts as final
{_finality_line(preset)}wrapped_native = "{preset.wrapped_native}"
# Money moves only when two endpoints of different operators agree. To trust a single operator, name it:
# single_operator = "{rpc_envs[0][1]}"
# To require more than two: quorum = 3
max_lag_blocks = {_max_lag_blocks(preset)}                 # largest distance in blocks between the operators' heads while trading
{rpc_tables}

[wallet]
address = "{wallet}"               # enough for status and plan
keystore = "wallet.json"           # from trimtab wallet create; or keyring, key_env, prompt, signer_url_env (docs/keys.md)
# To keep no key here, and let the wallet's owner or the owners of a Safe sign elsewhere: mode = "propose" (docs/keys.md)
payout_addresses = []              # allowed recipients of trimtab withdraw, after trimtab trust has confirmed them

[portfolio]
numeraire = "{numeraire}"
{caps.at_most("max_live_value", 1_000)}: largest value that the agent manages; "off": no limit
# use_cash = "1000"                # most {numeraire} that the agent takes from the wallet; the rest is left alone (docs/bot.md)
{_asset_tables(assets)}{_hub_tables(hubs)}
# Orders (docs/orders.md): entry, stop_loss, take_profit, trailing_stop, alert_above, alert_below of an asset; for the whole portfolio:
# [portfolio.orders]
# stop_loss = "20%"                # of the NAV per share; take_profit and trailing_stop likewise
# absent = "cash"                  # destination of a sold asset's weight; or "redistribute" over the others
# hysteresis = "1%"                # distance from its level at which an order can be armed
# Targets chosen from data, except those in fixed (docs/weights.md; preview: trimtab weights):
# [portfolio.weights]
# kind = "risk_parity"             # or {_allocator_names()}
# every = "7d"                     # interval between choices
# window = "90d"                   # prices used: one per step, covering at least min_history, the newest no older than max_age
# step = "1d"
# min_history = "30d"
# max_age = "2d"
# keep = "14d"                     # validity of the last choice if no new one can be made; after that trading stops
# churn = "1%"                     # a choice is applied only if it changes a weight by more than this
# max_change = "20%"               # a choice that changes a weight by more waits for trimtab weights --accept; or "off"
# until_chosen = "wait"            # no trading before the first choice; or "targets": the targets above
# fixed = ["{numeraire}"]                 # assets that keep their targets
# cap = "60%"                      # maximum weight of any asset; limits = {{ WETH = {{ min = "10%", max = "50%" }} }} for single ones

[reference]
kind = ["feed", "twap"]            # price of a token: its feed, else a time-weighted pool price
twap_window = "30m"
short_window = "5m"                # a second TWAP that follows a move sooner: minimums go by the worst price; or "off"
feed_max_age = "25h"               # Chainlink's slowest heartbeat is a day; an asset may have its own feed_max_age
{_sequencer_lines(preset)}
{venues_text(preset.venues, preset.untraded_venues)}
[policy]
{_trigger_comments()}
# zone: the tracking rule with a horizon of your own (docs/zone.md):
# trigger = {{ kind = "zone", tracking_error_cost = "0.5bps", horizon = "30d" }}   # annual cost of 1 % of tracking error
trigger = {{ kind = "tracking", strictness = "normal" }}
# destination = "target"           # of threshold, time, hybrid: or "band" (the nearer edge), or "halfway"
# Risk for tracking and zone; what is missing is the usual of the token's class:
# risk = {{ volatilities = {{ WETH = "80%", USDC = "0.5%" }}, correlation = "0%" }}   # correlations = {{ "WETH/WBTC" = "80%" }}
# risk = {{ estimate = {{ window = "90d", step = "1d", min_history = "30d", max_age = "2d" }} }}   # or from recorded prices
cooldown = "1h"
# only = "sell"                    # one side only: sell, buy, winners or losers (docs/triggers.md)
confirm_blocks = 3                 # previous blocks whose prices must confirm a trigger; 0 acts on a single block
jitter = "10%"                     # random delay of a schedule, as a share of its interval; "off" is predictable

[limits]                           # each may be "off"; a limit whose data are missing refuses the plan; shares need a unit: %, bps or x
# i_accept = ["slippage"]          # limits that are deliberately off or above their ceiling. Ceilings: {_ceilings_text()}
{_limit_lines(preset, assets, numeraire, caps)}

[execution]
router = "swap_router_02"          # or "rebalancer", trimtab's own contract, at the address rebalancer = "0x…"
deadline = "90s"
submit_url = ""                    # private submission endpoint{_submission_comment(preset)}
# min_tip = "1 gwei"               # least tip per unit of gas, if nodes demand more than they suggest
submit_public_fallback = false     # true: use the public mempool if the private endpoint fails
style = "market"                   # one trade; or gradual execution, with every key of its style (docs/gradual-execution.md):
# style = "rounds"                 # slices of random size at random times, if they cost less than the impact that they save
# style = "twap"                   # over = "6h" in place of interval, recovery and waiting_cost
# max_rounds = 6
# interval = "10m"                 # mean time between two slices
# recovery = "10m"                 # assumed half-life of a pool's recovery after a trade
# waiting_cost = "0.5bps"          # cost of waiting an hour, as a share of the remainder; "zone" uses the risk of a zone
# size_jitter = "30%"              # random deviation of a slice from an equal share; "off" is predictable
# time_jitter = "50%"              # random deviation of the time between slices
# budget = "0.5%"                  # largest loss of all slices against arrival prices, as a share of the order
# style = "limit"                  # one trade, no worse than arrival prices less limit, within patience
# limit = "0.2%"
# patience = "4h"

[lp]                               # parameters for judging liquidity positions
volatility = "60%"                 # annual, of a pair's price; a position may override it
horizon = "30d"                    # horizon of the expected loss
# Only positions confirmed here are counted, with the amounts deposited:
# [[portfolio.positions]]
# kind = "{LpVenue.V3}"              # or "{LpVenue.V2}" with pair = "0x…"
# token_id = 123456
# entry = {{ WETH = "1.5", USDC = "4500" }}
# Liquidity targets, provided and moved within the limits above (docs/liquidity.md):
# [[lp.targets]]
# kind = "{LpVenue.V3}"              # or "{LpVenue.V2}" with pair = "0x…" and share alone
# pool = "0x…"
# share = "10%"                    # of the portfolio; "0%" withdraws everything
# width = "20%"                    # from reference price / 1.2 to reference price * 1.2
# compound_above = "25"            # fees above this in the numeraire are reinvested; "off" leaves them

{chr(10).join(TABLE_TEMPLATES)}
# Several strategies over this wallet, each with its own accounts (docs/strategies.md):
# [[strategies]]
# name = "trend"
# share = "60%"                    # of the capital; all sum to 100%
# floor = "10%"                    # of the capital: its minimum under the health rule
# weights = {{ WETH = "70%", USDC = "30%" }}   # of its own capital; or allocator = "equal"
# futures = {{ WETH = "-50%" }}      # signed shares of its target notional, with [futures]
# health = {{ sharpe = 0.5, recover = 0.8, window = "30d", period = "30d", recover_period = "30d" }}   # or "off"
# [split]
# relative = "20%"                 # of a share: drift at which the split of capital is restored

# Perpetual futures in addition to the tokens (docs/futures.md); their orders are part of the same step
# [futures]
# venue = "perpetual_protocol_v2"
# clearing_house = "0x…"           # also vault, account_balance, exchange, market_registry, config, delegate_approval
# account = "0x…"                  # owner of the margin account; default: the wallet
# collateral = "{numeraire}"              # margin asset
# On Hyperliquid instead: venue = "hyperliquid", url, network, agent_name and agent_keystore, markets by symbol only
# leverage = "2x"                  # gross notional per account value
# band = "5%"                      # drift of a market's weight, in points, that triggers; "off" disables it
# leverage_band = "20%"            # drift of the gross notional, as a share of its target, that triggers
# every = "7d"                     # or cron and timezone: also brings every position to its target at these times
# ask = ["leverage"]               # triggers that only alert, and act in trimtab rebalance --send
# funding_horizon = "7d"           # horizon of expected funding, which counts as cost and makes a paying position overweight; or "off"
# [[futures.markets]]
# symbol = "WETH"
# base = "0x…"                     # the market's virtual base token; also aggregator = "0x…" of its index feed
# asset = "WETH"                   # asset with the same price
# weight = "60%"                   # of the gross notional, "-40%" for a short; absolute weights sum to 100%
# [futures.limits]
# max_leverage = "4x"
# max_utilisation = "60%"          # maximum share of the account value in use as margin
# max_position = "70%"             # maximum share of one position in the gross notional
# spot_multiple = "2.5x"           # maximum gross notional per spot value
# stress_move = "20%"              # adverse move of all positions at once that the account must survive
# slippage = "0.5%"                # distance of an order's bound from the index; emergency_slippage = "3%"
# hysteresis = "5%"                # distance below its limit at which a reduction ends
# emergency_distance = "5%"        # distance to liquidation below which half of a position is closed
# max_basis = "2%"                 # maximum distance of mark and index for opening positions
# max_reduction_per_day = "2x"     # maximum notional closed by reductions in 24 h per account value, except emergencies
# max_top_up_per_day = "10%"       # maximum collateral deposited in 24 h before positions are reduced, as a share of spot
# index_age = "1h"                 # maximum age of the index for trading
# [futures.hedge]                  # shorts part of an overweight instead of selling it if that is cheaper
# ratio = "50%"                    # of the overweight; its market needs asset
# horizon = "30d"                  # expected holding time, after which a hedge is closed
# min_saving = "0.5%"              # of the hedged value: minimum saving of the short
# tax_rate = "25%"                 # on gains by the lots of [tax]; capital_cost = "4%" is the yearly cost of the required margin

[store]
url = "sqlite:///trimtab.db"

[service]                          # monitoring of trimtab run (docs/service.md); trimtab serve answers /metrics, /health, /ready
# heartbeat_url_env = "HEARTBEAT"  # requested after each successful cycle: a dead man's switch
# log_format = "json"              # or "text": log lines on stderr
hang_after = "10m"                 # a cycle without progress for this long ends the process; systemd restarts it
wallet_wait = "2m"                 # maximum wait for another process that holds the wallet
keep_steps = 2000                  # newest cycles without a transaction to keep

[alerts]                           # notifications to the owner (docs/alerts.md)
cooldown = "6h"                    # minimum time between two alerts of one cause
# digest = "day"                   # or "week": its profit and costs, once it has ended (UTC)
# quiet = "22:00-07:00"            # with timezone = "Europe/Berlin"; urgent = ["error"] is always sent
# [[alerts.targets]]
# name = "mail"
# url_env = "TRIMTAB_MAIL"         # secret address in apprise's format: mailtos://…, tgram://…, jsons://…
# [telegram]                       # status and confirmations on a phone: trimtab telegram (docs/telegram.md)
# token_env = "TRIMTAB_TELEGRAM"
# chats = [123456789]
"""


MOST_COLUMNS = 140
FUTURES_NOTIONAL_COMMENT = "maximum gross notional of [futures] per spot value, unless futures.limits.spot_multiple is lower"
MAX_WEIGHT_LINE = (
    '# max_weight = { any = "60%" }     # maximum weight of any asset except the numeraire; or by name:'
    ' { any = "60%", WETH = "50%" }'
)


def _ceilings_text() -> str:
    return ", ".join(f"{key} {bps / 100:g}%" for key, bps in CEILINGS.items())


def _trigger_comments() -> str:
    """Return comment lines of triggers: those with a hint, then the names of the others."""
    lines = [""]
    for notation in NOTATIONS.values():
        if not notation.hint:
            continue
        hint_text = f"{notation.kind}: {notation.hint}"
        if lines[-1] and len(lines[-1]) + len(hint_text) < MOST_COLUMNS:
            lines[-1] += f";   {hint_text}"
        else:
            lines.append(f"# {hint_text}")
    kinds_without_hint = [notation.kind for notation in NOTATIONS.values() if not notation.hint]
    listed_kinds = [kind for kind in kinds_without_hint if kind not in ("zone", FUNCTION)]
    return "\n".join(
        [*lines[1:], f"# {', '.join(listed_kinds)}, several in a list: docs/triggers.md"]
    )


def _allocator_names() -> str:
    excluded_methods = (
        AllocationMethod.FIXED,
        AllocationMethod.RISK_PARITY,
        AllocationMethod.SIGNAL,
    )
    return ", ".join(method.value for method in AllocationMethod if method not in excluded_methods)


LAG_MS = 6_000
"""Time by which the heads of operators may differ, where blocks are short."""


def _max_lag_blocks(preset: Preset) -> int:
    """Return the distance of the operators' heads in blocks."""
    if preset.network is None:
        return 3
    return min(64, max(3, -(-LAG_MS // preset.network.block_ms)))


def _finality_line(preset: Preset) -> str:
    """Return the line of a network's finality tag; empty for a local chain."""
    if preset.network is None:
        return ""
    comment = '# and its block has this tag; "blocks": the confirmations alone'
    return f'finality = "{preset.network.finality}"'.ljust(35) + f"{comment}\n"


def _submission_comment(preset: Preset) -> str:
    """Return the comment on where transactions go: a known private endpoint, and what empty
    means.
    """
    network = preset.network
    if network is not None and network.is_sequenced:
        return f"; empty: {ORDERED_BY_SEQUENCER}"
    if network is not None and network.private_endpoint is not None:
        return f', such as "{network.private_endpoint}"; empty: public mempool'
    return "; empty: public mempool"


def _sequencer_lines(preset: Preset) -> str:
    """Return the sequencer feed of a rollup; empty otherwise."""
    feed = SEQUENCER_FEEDS.get(preset.chain_id)
    if feed is None:
        return ""
    grace_line = (
        f'sequencer_grace = "{SEQUENCER_GRACE}"             # uptime required before trading'
    )
    return f'sequencer_feed = "{feed}"   # uptime feed of the rollup\'s sequencer; or "off"\n{grace_line}\n'


def _limit_lines(
    preset: Preset, assets: Sequence[TemplateAsset], numeraire: str, caps: _DollarCaps
) -> str:
    """Return one line per limit. native_top_up is off unless the wrapped coin is an asset and can
    be unwrapped. oracle_deviation follows the feeds' thresholds where they are known.
    """
    numeraire_feed = next((asset.feed for asset in assets if asset.symbol == numeraire), None)
    asset_feeds = [asset.feed for asset in assets if asset.symbol != numeraire]
    deviation_bps = starting_deviation_bps(asset_feeds, numeraire_feed)
    network = BASE if preset.chain_id == LOCAL_OP_STACK_ID else preset.network
    limit_by_key = {} if network is None else network_limits(network)
    has_native = any(asset.address in ("native", preset.wrapped_native) for asset in assets)
    numeraire_lacks_feed = preset.network is not None and numeraire in {
        *(token.symbol for token in preset.tokens if token.feed is None),
        *(asset.symbol for asset in assets if asset.feed is None),
    }
    lines = []
    for spec in LIMITS_IN_CONFIG_ORDER:
        if spec.unit is LimitUnit.COINS and spec.initial_value != "off":
            cap_line = caps.minimum_line if spec.tighter is TighterDirection.MORE else caps.at_most
            line = cap_line(spec.key, int(spec.initial_value))
            if spec.comment:
                line += f": {spec.comment}"
        else:
            limit_text = spec.initial_value if has_native or spec.key != "native_top_up" else "off"
            if spec.key == "oracle_deviation" and deviation_bps is not None:
                limit_text = f"{deviation_bps / 100:g}%"
            if spec.key == "depeg" and numeraire_lacks_feed:
                limit_text = "off"
            if limit_text != "off":
                limit_text = limit_by_key.get(spec.key, limit_text)
            line = f'{spec.key} = "{limit_text}"'
            if spec.comment:
                line = f"{line:<35}# {spec.comment}"
        lines.append(line)
        if spec.key == "plan_cost":
            lines.append(MAX_WEIGHT_LINE)
    return "\n".join(lines)


SAFE_LINES = {
    "keystore|test_account": 'mode = "propose"                   # the owners sign (docs/safe.md)\nsafe = true',
    "deadline": 'deadline = "30m"',
    "native_floor": 'native_floor = "off"',
    "native_top_up": 'native_top_up = "off"',
}
"""Lines of the config of a Safe, by the key whose line they replace."""


def with_safe(config_text: str) -> str:
    """Return a new config whose wallet is a Safe: its owners sign, within half an hour, and an
    executor pays the gas.
    """
    for keys_pattern, lines in SAFE_LINES.items():
        config_text = re.sub(rf"(?m)^({keys_pattern}) = .*$", lines, config_text, count=1)
    return re.sub(r"(?m)^# To keep no key here, .*\n", "", config_text)


def replace_setting(
    config_text: str, pattern: str, setting: str, *, keeps_width: bool = False
) -> str:
    """Replace the first match in a new config. Raises ConfigError without a match: the config would
    lack what the owner wrote.
    """
    changed_text, count = re.subn(
        pattern,
        lambda match: setting.ljust(len(match[0])) if keeps_width else setting,
        config_text,
        count=1,
        flags=re.MULTILINE,
    )
    if not count:
        raise ConfigError(f"the new config has no {pattern}", "this is a bug; report it")
    return changed_text


def network_limits(network: Network) -> dict[str, str]:
    """Return the limits of a new config that depend on what gas costs on the network."""
    return {
        "gas_price": f"{network.base_fee_ceiling_gwei} gwei",
        "gas_per_day": network.gas_per_day,
        "native_floor": network.native_floor,
        "native_top_up": network.native_top_up,
    }


def _asset_tables(assets: Sequence[TemplateAsset]) -> str:
    return "\n".join(
        f"[[portfolio.assets]]\n{_token_lines(asset)}"
        f'target = "{asset.target}"\nreserve = "0"                      # whole coins that are'
        " never traded\n"
        '# band = "5%abs"                   # its own band, with threshold or hybrid; or'
        f' "10%rel"\n{_feed_lines(asset)}'
        for asset in assets
    )


def _hub_tables(hubs: Sequence[TemplateAsset]) -> str:
    return "".join(
        "\n# Not held: routes may pass through it, and it prices"
        f" gas.\n[[portfolio.hubs]]\n{_token_lines(hub)}{_feed_lines(hub)}"
        for hub in hubs
    )


def _token_lines(asset: TemplateAsset) -> str:
    decimals_line = ""
    if asset.decimals is not None:
        decimals_line = f"decimals = {asset.decimals}".ljust(35) + "# must match the chain\n"
    return f'symbol = "{asset.symbol}"\naddress = "{asset.address}"\n{decimals_line}'


def _feed_lines(asset: TemplateAsset) -> str:
    if asset.feed in HOURLY_FEEDS:
        max_age_line = (
            f'feed_max_age = "{HOURLY_FEED_MAX_AGE}"'.ljust(35) + "# it writes a round every hour"
        )
        return f'feed = "{asset.feed}"\n{max_age_line}\n'
    if asset.feed:
        return f'feed = "{asset.feed}"\n'
    return '# feed = "0x…"                   # a USD price feed, if there is one\n'


def starting_limits(numeraire: Token) -> Limits:
    """Return the limits of a new config, without a cap on the managed value."""
    limits_table = LimitsTable.model_validate(starting_values(numeraire.symbol)["limits"])
    return build_limits_from_table(limits_table, None, numeraire)


def starting_values(numeraire: str) -> dict[str, Any]:
    """Return the values of a new config, which has no assets."""
    return read_toml(render_config(ETHEREUM_PRESET, "", (), (), numeraire, (("RPC_URL", "any"),)))
