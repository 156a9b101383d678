"""From a BraTS folder to checked, split and preprocessed cases."""
