"""The loss: its terms, and how they are weighted."""
