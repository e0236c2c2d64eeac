"""What the guards ask of a plan that acts in a layer."""

from __future__ import annotations


class LayerCase:
    """Answers of a layer on one plan; these are the ones on a plan that acts in no layer."""

    exempt = ""
    """Text of limits that do not apply to a plan that only lowers the layer's risk."""

    def only_reduces(self) -> bool:
        """True if the plan only lowers the layer's risk."""
        return False

    def needs_no_gas(self) -> bool:
        """True if the plan sends no transaction."""
        return False

    def needs_no_spot_price(self) -> bool:
        """True if the plan has to be carried out whatever the prices of the spot portfolio."""
        return False

    def own_gas_budget(self, limit_wei: int) -> tuple[int, int] | None:
        """Return the daily gas limit of such a plan and its use, wei, with the limit of all other
        gas; None if the plan counts as other gas.
        """
        return None
