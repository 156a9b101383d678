"""What one run does: prepare its cases, train its folds, evaluate out of fold, predict new cases."""
