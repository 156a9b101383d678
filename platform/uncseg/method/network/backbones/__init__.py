"""Networks of volumes that are none of nnU-Net's plans, one per file."""
