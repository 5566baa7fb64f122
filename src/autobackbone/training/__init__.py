"""One candidate, trained: stored activations, the recipe, and the fit."""
