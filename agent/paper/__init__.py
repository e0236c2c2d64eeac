"""Paper trading: real blocks, exact pools and futures venue, a paper wallet, and nothing that sends."""
