"""Reference prices and their checks: feeds, TWAPs, pegs, and the sequencer of a rollup."""

from agent.reference.checks import PegUnknown as PegUnknown
from agent.reference.checks import PriceRange as PriceRange
from agent.reference.checks import confirmed_prices as confirmed_prices
from agent.reference.checks import depeg_fault as depeg_fault
from agent.reference.checks import depegged_tokens as depegged_tokens
from agent.reference.checks import deviation_loss as deviation_loss
from agent.reference.checks import disagreement_loss as disagreement_loss
from agent.reference.checks import dollar_pegs as dollar_pegs
from agent.reference.checks import is_dollar as is_dollar
from agent.reference.checks import late_twap_tokens as late_twap_tokens
from agent.reference.checks import price_fault as price_fault
from agent.reference.checks import price_ranges as price_ranges
from agent.reference.checks import round_price as round_price
from agent.reference.checks import sequencer_fault as sequencer_fault
from agent.reference.checks import source_conflict as source_conflict
from agent.reference.checks import source_deviations as source_deviations
from agent.reference.prices import PriceInputs as PriceInputs
from agent.reference.prices import ReferencePrice as ReferencePrice
from agent.reference.prices import ReferencePrices as ReferencePrices
from agent.reference.prices import UnpricedToken as UnpricedToken
from agent.reference.prices import answer_bound_fault as answer_bound_fault
from agent.reference.prices import price_inputs as price_inputs
from agent.reference.prices import prices_from as prices_from
from agent.reference.prices import reference_prices as reference_prices
from agent.reference.prices import round_regression_fault as round_regression_fault
from agent.reference.prices import spot_prices as spot_prices
