"""Ways to get an uncertainty map, one per file; ``registry`` lists them. All maps are in [0, 1].

Importing this package, or the registry, does not import torch.
"""
