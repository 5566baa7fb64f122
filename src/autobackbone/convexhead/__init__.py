"""A convex head on features, exact in seconds.

Logistic regression for classes, one for each of several labels, ridge regression for numbers.
"""

from autobackbone.convexhead.fitting import fit_head
from autobackbone.convexhead.head import Floats, Head, Ints

__all__ = ["Floats", "Head", "Ints", "fit_head"]
