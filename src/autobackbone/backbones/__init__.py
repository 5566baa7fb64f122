"""Pre-trained networks: what is known of them, where their weights are, how they are built and split."""
