"""Closing prices from files of exchanges, data sites and trimtab's own layouts, and the search for
wrong ones.
"""
