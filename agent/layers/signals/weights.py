"""Weights from the answer of a user-defined signal."""

from __future__ import annotations

from fractions import Fraction

from agent.errors import Refused
from agent.model import WEIGHT_RESOLUTION, AllocatorConfig, SignalAnswer
from agent.units import BPS, format_bps, largest_remainder
from agent.weights.allocators import AllocatorData, UnroundedWeights, WeightBounds


def signal_weights(
    _settings: AllocatorConfig, bounds: WeightBounds, inputs: AllocatorData
) -> UnroundedWeights:
    """Return the weights from a user-defined signal. Raises Refused with the reason if there are
    none, or if one is beyond its bounds.
    """
    answer = inputs.signal_answer
    if answer is None:
        raise Refused("the signal was not run", remedy="see docs/signals.md")
    if answer.why:
        raise Refused(f"signal {answer.name}: {answer.why}", remedy="see docs/signals.md")
    spot_ppm = dict(answer.spot_ppm or ())
    shares_bps = []
    total_ppm = sum(spot_ppm.values(), Fraction(0))
    for token, low_bps, high_bps in zip(
        bounds.tokens, bounds.low_bps, bounds.high_bps, strict=True
    ):
        share_bps = Fraction(spot_ppm.get(token, 0) * bounds.total_bps) / (total_ppm or 1)
        if spot_ppm and not low_bps <= share_bps <= high_bps:
            raise Refused(
                f"signal {answer.name}: {inputs.label_by_token[token]} {float(share_bps) / 100:.2f} % is not"
                f" within {low_bps / 100:g} to {format_bps(high_bps)}",
                remedy="change the signal, or limits and cap of the allocator",
            )
        shares_bps.append(share_bps)
    return UnroundedWeights(
        tuple(shares_bps) if spot_ppm else (),
        f"{' and '.join(answer.kinds)} weights of the signal {answer.name}",
        answer.source,
        market_bps=_market_bps(answer),
    )


def _market_bps(answer: SignalAnswer) -> tuple[tuple[str, int], ...]:
    """Return the futures weights in bps, rounded by largest remainder; their absolute values sum to
    at most 10,000.
    """
    market_ppm = answer.market_ppm or ()
    absolute_ppm = [Fraction(abs(ppm)) for _, ppm in market_ppm]
    total_bps = min(BPS, round(sum(absolute_ppm, Fraction(0)) * BPS / WEIGHT_RESOLUTION))
    rounded_bps = largest_remainder(absolute_ppm, total_bps) if total_bps else [0] * len(market_ppm)
    return tuple(
        (market, bps if ppm > 0 else -bps)
        for (market, ppm), bps in zip(market_ppm, rounded_bps, strict=True)
    )
