"""Keys and the transactions that they may sign: calldata is decoded independently and judged by one
table of rules.
"""
