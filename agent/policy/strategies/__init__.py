"""Several strategies over one wallet."""
