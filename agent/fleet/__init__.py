"""Several portfolios in one process."""
