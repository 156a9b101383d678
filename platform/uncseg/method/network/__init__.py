"""Networks: nnU-Net's with the uncertainty head, other backbones, error networks."""
