"""The joint search: its space, its study, and the loop that asks, trains and tells."""
