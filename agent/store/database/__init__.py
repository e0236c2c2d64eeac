"""Database access: errors, transactions, statements, facts, and decoding of rows."""
