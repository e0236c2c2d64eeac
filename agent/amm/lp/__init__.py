"""What liquidity positions hold, to the wei of the contracts, and what providing liquidity costs and brings."""
