"""Edits of the config: changed assets, the edit itself, profiles."""
