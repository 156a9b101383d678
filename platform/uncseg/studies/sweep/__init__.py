"""Sweeps: the file that describes one, what it may say, and what its trials amount to. Knows nothing of Ray."""
