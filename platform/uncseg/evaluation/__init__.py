"""Scores of segmentations and of uncertainty maps, and the tables made of them."""
