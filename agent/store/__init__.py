"""Journal, ledger, history: SQLAlchemy models and Alembic migrations."""
