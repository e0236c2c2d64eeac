"""From a goal to legs: pure, exact, bounded."""
