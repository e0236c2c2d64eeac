"""How answers are shown: tables, documents, the terminal."""
