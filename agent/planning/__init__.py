"""From a goal to legs: continuous solve, pool selection, exact simulation. Pure, exact, bounded."""
