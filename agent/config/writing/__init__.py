"""What writes trimtab.toml: templates, presets, profiles and edits."""
