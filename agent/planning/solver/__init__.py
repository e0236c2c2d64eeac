"""The planner's solver: routes and amounts of a rebalance by dual decomposition."""
