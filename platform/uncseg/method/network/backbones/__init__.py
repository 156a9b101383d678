"""Networks of volumes other than those of nnU-Net's plans, one per file."""
