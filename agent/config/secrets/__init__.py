"""Where secrets come from: `.env` beside the config, keyrings and key services."""
