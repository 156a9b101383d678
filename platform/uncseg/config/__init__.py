"""Experiment files: their sections, the rules between them, and how single fields are set and read. Free of torch."""
