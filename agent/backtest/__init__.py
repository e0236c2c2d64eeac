"""The same steps on history: prices become snapshots, swaps are carried out on exact pools, books are kept as live."""
