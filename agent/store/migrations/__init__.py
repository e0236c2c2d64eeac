"""Alembic scripts that migrate a store of any earlier version to the current one."""
