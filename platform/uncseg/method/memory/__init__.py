"""The error memory: the average of a network's own errors, kept per case, which the head learns."""
