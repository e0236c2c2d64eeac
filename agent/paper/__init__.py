"""Paper trading: the live step on live snapshots, executed on the exact pools of a later one, with
a paper wallet.
"""
