"""Train machine-learning models beside data that may not leave."""

__version__ = "0.1.0"
