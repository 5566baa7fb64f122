"""Other ways in: the search and its networks as other libraries know such things."""
