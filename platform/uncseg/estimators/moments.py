"""Mean and variance of several predictions of one case, and the maps that they give."""

import math

import torch

from uncseg.tasks.outputs import Output, Outputs

LEAST_PROBABILITY = 1e-7


def entropy(p_main: torch.Tensor) -> torch.Tensor:
    """Return the entropy of the main region against the rest, −p·log p − (1 − p)·log(1 − p), in bits: in [0, 1]."""
    p_main = p_main.clamp(0, 1)  # a sum of probabilities may round to more than 1, whose entropy would be −∞
    return (torch.special.entr(p_main) + torch.special.entr(1 - p_main)) / math.log(2)


def class_probabilities(logits: torch.Tensor, output: Output) -> torch.Tensor:
    """Return probabilities of the classes, background first, or of the regions, float32, from logits, (C, …)."""
    return logits.float().sigmoid() if output == "regions" else logits.float().softmax(0)


class Moments:
    """Running moments of samples of a case's probabilities, by Welford's algorithm: equal samples have variance 0."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.samples = 0
        self._mean = self._mean_main = self._squares = torch.zeros(())

    def add(self, probabilities: torch.Tensor) -> None:
        """Add a sample, (C, …) in [0, 1]."""
        p = probabilities[self.outputs.main_channels].sum(0)
        self.samples += 1
        self._mean = self._mean + (probabilities - self._mean) / self.samples
        before = p - self._mean_main
        self._mean_main = self._mean_main + before / self.samples
        self._squares = self._squares + before * (p - self._mean_main)

    @property
    def p_main(self) -> torch.Tensor:
        """Mean probability of the main region, (…)."""
        return self._mean_main.clamp(0, 1)

    @property
    def logits(self) -> torch.Tensor:
        """Logits of the mean probabilities, (C, …) float32, from which nnU-Net takes its decisions."""
        mean = self._mean.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return mean.logit() if self.outputs.kind == "regions" else mean.log()

    def maps(self) -> dict[str, torch.Tensor]:
        """Return the maps that the samples give, (…) in [0, 1]; ``aleatoric`` and ``epistemic`` add up to ``total``."""
        total, between = 4 * self.p_main * (1 - self.p_main), (4 * self._squares / self.samples).clamp(0, 1)
        within = (total - between).clamp(0, 1)
        parts = {"total": total, "aleatoric": within, "epistemic": between, "variance": between}
        return parts | {"entropy": entropy(self.p_main)}
