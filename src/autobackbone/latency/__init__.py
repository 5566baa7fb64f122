"""How long a network takes where it will run: the target, the protocol of measuring, and what was measured before."""
