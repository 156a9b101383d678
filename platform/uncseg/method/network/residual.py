"""A head that adds to calibrated p: it has to learn only what the network's own probability leaves out.

logit P(the decision is wrong) = a + b·m + c·s + d·m·s + e, with the margin m of the decision and its side s as in
:mod:`uncseg.method.failures.calibration`, and e the head's evidence for the main region: it speaks against a decision
that says otherwise. The four numbers are weights of the network and start where the probability is taken at its word;
the head starts at 0.
"""

import torch
from torch import nn

from uncseg.method.network.logits import main_logit, predicted_regions
from uncseg.tasks.outputs import Outputs

FIRST_NUMBERS = (0.0, -1.0, 0.0, 0.0)
"""With these P(wrong) = 1 − p where the region is chosen, and p elsewhere."""


class Residual(nn.Module):
    """Turns the head's evidence into the logit of P(the decision on the main region is wrong).

    Args:
        outputs: what the logits mean.
    """

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs
        self.numbers = nn.Parameter(torch.tensor(FIRST_NUMBERS))

    def forward(self, logits: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        """Return u, (B, 1, …) float32, from full-resolution logits (B, C, …), which take no gradient from it."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.detach().float()
            chosen = self.decision(logits)
            against = torch.where(chosen, -1.0, 1.0)
            margin, side = -against * main_logit(logits, self.outputs), chosen.float()
            a, b, c, d = self.numbers.float()
            return a + b * margin + c * side + d * margin * side + against * evidence.float()

    def decision(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the decision on the main region, (B, 1, …) bool."""
        return predicted_regions(logits, self.outputs)[:, self.outputs.main : self.outputs.main + 1]
