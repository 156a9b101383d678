"""The error memory: what the head learns from, kept per case."""
