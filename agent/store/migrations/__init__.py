"""Alembic scripts that bring a store of any earlier version to the present one."""
