"""trimtab.toml: its schema, validation, and conversion to the model types."""
