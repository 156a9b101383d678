"""The loss: its terms, and their weighted sum."""
