"""The HTTP API: routes, tokens and rates, and the server of an AI assistant."""
