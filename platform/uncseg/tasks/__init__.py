"""Tasks: what the images, labels, regions and lesions of a dataset mean."""
