"""Which pre-trained network to start from, how much of it to fine-tune, and at what learning rate."""

__version__ = "0.1.0"
