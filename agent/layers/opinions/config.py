"""Table [second_opinions]: which aggregators are asked about a plan that is shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.tables.fields import Variable, VariableTable

TEMPLATE = """\
# [second_opinions]                # ask aggregators about a plan that is shown; they learn its tokens and amounts (docs/planning.md)
# services = ["kyberswap", "cow"]  # also "0x", with a key
# zero_x_env = "ZERO_X_API_KEY"    # variable that holds the key for 0x
"""


class SecondOpinionsTable(VariableTable):
    """Quotes of aggregators beside a plan (docs/planning.md)."""

    services: list[Literal["0x", "kyberswap", "cow"]] = Field(min_length=1)
    """Aggregators that are asked."""
    zero_x_env: Variable | None = None
    """Variable with the key for 0x."""

    @model_validator(mode="after")
    def _check_values(self) -> SecondOpinionsTable:
        if repeated_services := [
            service for service in self.services if self.services.count(service) > 1
        ]:
            raise ValueError(f"services: {repeated_services[0]!r} is given twice; remove one")
        if ("0x" in self.services) is (self.zero_x_env is None):
            raise ValueError(
                'zero_x_env: 0x needs a key; name the variable that holds it, or remove "0x" from'
                " services"
                if self.zero_x_env is None
                else 'zero_x_env: has no effect without "0x" in services; add it, or remove the key'
            )
        return self
