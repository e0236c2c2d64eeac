"""Tables of trimtab.toml, each with the checks of its own values."""
