"""Accounting: double entry, tax lots, returns and exports, without any store or chain."""
