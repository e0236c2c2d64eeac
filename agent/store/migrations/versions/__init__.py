"""One script per version of the store, named by its number."""
