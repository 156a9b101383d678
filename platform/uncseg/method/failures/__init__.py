"""Cross-fitted failures: where a segmentation is wrong, learnt from the failures of the other folds' networks."""
