"""What the owner can do about each guard that refuses."""

from __future__ import annotations

REMEDIES = {
    "price_impact": "trade less at once, add deeper pools, or raise limits.price_impact",
    "slippage": "plan anew at a fresh block, or raise limits.slippage",
    "fair_floor": "a pool is off the reference price or the floor is too low; plan anew later, and keep slippage or price_impact on",
    "plan_cost": "wait for cheaper gas or deeper pools, trade less, or raise limits.plan_cost",
    "turnover": "let it go in rounds with destination = 'halfway', or raise limits.turnover",
    "daily_turnover": "wait until older trades are 24 h old, or raise limits.daily_turnover",
    "total_loss": "find out what lost money since the start (trimtab pnl, trimtab history), then raise limits.total_loss or stop",
    "daily_loss": "wait until losses (trimtab history) are 24 h old, trade less, lower limits.slippage, or raise limits.daily_loss",
    "year_limit": "sell less of what gains, wait for the new year, or raise tax.year_limit",
    "balance_jump": "say what came or went: trimtab flows, then trimtab flows confirm; a rise is accepted after limits.balance_jump_wait",
    "impermanent_loss": "take liquidity out until the expected loss fits (trimtab lp), or raise limits.impermanent_loss",
    "lp_max_weight": "take liquidity out until its share fits (trimtab lp), or raise limits.lp_max_weight",
    "oracle_deviation": "pools and reference disagree: wait, and check feeds and pools with trimtab doctor",
    "feed_health": "wait for a fresh round, check the feed's address, or raise reference.feed_max_age",
    "sequencer": "wait until the rollup's sequencer has been up for reference.sequencer_grace",
    "second_quote_deviation": "check addresses and endpoint with trimtab doctor, or limits.second_quote_deviation = 'off'",
    "depeg": "a dollar token is off its peg: decide by hand what to hold, or raise limits.depeg",
    "pool_min_value": "leave this pool out, or lower limits.pool_min_value",
    "gas_price": "wait for cheaper gas, or raise limits.gas_price",
    "gas_per_day": "wait until older transactions are 24 h old, or raise limits.gas_per_day",
    "native_floor": "send native coin to the wallet, or lower limits.native_floor",
    "head_age": "check the endpoint and this machine's clock",
    "min_trade": "wait for more drift, or lower limits.min_trade",
    "max_live_value": "take value out of the wallet, or raise portfolio.max_live_value",
    "allowlist": "look at the contracts named, then pin them with trimtab trust",
    "token_screen": "take the tokens named out of the portfolio, or see docs/tokens.md",
    "kill_switch": "trimtab resume, once you know why it was paused",
    "quorum": "add a second operator's endpoint, or name the single one in chain.single_operator",
    "reverts_in_row": "look why they failed (trimtab history); trimtab resume then counts anew",
    "balance": "plan anew at a fresh block",
    "prediction": "plan anew at a fresh block",
    "expiry": "plan anew at a fresh block",
}
"""By guard, in words that follow "do this:"."""
