"""Display of results: documents, tables, the terminal."""
