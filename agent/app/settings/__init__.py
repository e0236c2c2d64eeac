"""Changes of the config, with their versions."""
