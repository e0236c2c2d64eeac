"""What the engine remembers corrections over time by."""

from __future__ import annotations

from typing import Protocol

from agent.model import Campaign, Draw


class CampaignBook(Protocol):
    """Every method has committed to disk before it returns. How far a campaign is comes with the history."""

    def draw_ahead(self, draw: Draw) -> None:
        """Remembers the draw for the first round of the next campaign, unless there is one already."""
        ...

    def begin_campaign(self, campaign: Campaign) -> str:
        """Writes a campaign down and returns its id; its first draw is used up. Raises OperatorNeeded while another is open."""
        ...

    def begin_round(self, campaign_id: str, number: int, step_id: str, at_s: int, draw: Draw) -> None:
        """Writes a round, or a try at it, down before it is sent; `draw` is for the round after it, drawn once for all tries."""
        ...

    def end_campaign(self, campaign_id: str, state: str, why: str, chain_s: int) -> bool:
        """Ends a campaign or an order by name; False when none of that id is open."""
        ...
