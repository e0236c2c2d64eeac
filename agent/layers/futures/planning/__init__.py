"""Plans of the futures layer: orders, margin moves and hedges."""
