"""Alembic scripts that migrate a store of an earlier version to the current one."""
