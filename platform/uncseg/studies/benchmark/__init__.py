"""A benchmark: trainings of one base experiment, and every uncertainty map that they give, on the same cases."""
