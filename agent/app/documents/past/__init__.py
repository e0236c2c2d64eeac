"""Documents of recorded steps: what they did, what waits, and frames of them."""
