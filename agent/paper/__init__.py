"""Paper trading: real blocks, exact pools and futures venue, and a paper wallet. Nothing is
sent.
"""
