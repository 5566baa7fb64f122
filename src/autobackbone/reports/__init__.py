"""A run told to people: one page, a few lines in a notebook, and in words."""
