"""Networks: backbones, the uncertainty head, heteroscedastic logits and error networks."""
