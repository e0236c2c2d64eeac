"""About what policies lose a year by costs and drift, on simulated prices."""
