"""A network together with its preprocessing."""
