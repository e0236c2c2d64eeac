"""Config edits and their versions; profiles."""
