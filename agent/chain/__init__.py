"""Access to nodes: requests, endpoint pool and quorum, lens and snapshots, token screen, sending,
receipts.
"""
