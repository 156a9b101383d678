"""Predictions of trained networks, on the preprocessed grid and in a case's own space."""
