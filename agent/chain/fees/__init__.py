"""What nodes and rollups demand for a transaction: tips and data fees."""
