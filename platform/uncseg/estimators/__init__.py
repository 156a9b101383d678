"""Ways to get an uncertainty map, one a file. All return values in [0, 1]."""
