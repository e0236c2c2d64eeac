"""Accounting: double entry, tax lots, returns and exports; independent of store and chain."""
