"""Double entry, tax lots and returns: what movements mean, without any store or chain."""
