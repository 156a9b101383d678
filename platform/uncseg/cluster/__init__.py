"""Ray: fold groups, cross-validation, distributed inference."""
