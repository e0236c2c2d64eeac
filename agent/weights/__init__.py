"""How target weights are chosen from data; floats live here and leave as basis points through one function (bounded.to_bps)."""
