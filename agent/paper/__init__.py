"""Paper trading: the live step on live snapshots, carried out on the exact pools of a later one, with a wallet of its own."""
