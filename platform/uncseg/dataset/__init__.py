"""From a folder of cases to checked, split and preprocessed cases."""
