"""Tables of the config that trade in parts."""

from __future__ import annotations

ROUNDS = {
    "style": '"rounds"',
    "max_rounds": "6",
    "interval": '"10m"',
    "recovery": '"20m"',
    "waiting_cost": '"0.5bps"',
    "size_jitter": '"30%"',
    "time_jitter": '"50%"',
    "budget": '"0.5%"',
}
TWAP = {"style": '"twap"', "max_rounds": "8", "over": '"6h"', "size_jitter": '"off"', "time_jitter": '"off"', "budget": '"off"'}
LIMIT = {"style": '"limit"', "limit": '"-0.5%"', "patience": '"4h"'}
