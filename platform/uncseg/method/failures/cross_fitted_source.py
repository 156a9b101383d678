"""The head of a fold learns the map that the same fold of another run has learnt from the failures of the others.

That map was learnt without the references of the fold's own cases, as ``uncseg.runs.cross_fitting`` says, and on whole
cases without augmentation. Here it is computed for patches: size and distance end at the patch.
"""

import numpy as np
import torch

from uncseg.method.failures.failure_model import FailureModel
from uncseg.method.failures.margins import clipped_logit
from uncseg.method.failures.voxel_map import Asked
from uncseg.method.memory.error_memory import Reading
from uncseg.method.network.logits import region_probabilities
from uncseg.method.training.error_sources import Visit, known_everywhere
from uncseg.tasks.outputs import Outputs


class CrossFitted:
    """P(the network's own decision is wrong), by what its fold has learnt from the failures of the others."""

    def __init__(self, learnt: FailureModel, outputs: Outputs) -> None:
        self.learnt = learnt
        self.outputs = outputs

    def expected_error(self, visit: Visit) -> Reading:
        """Return P(the decision on the main region is wrong) in the mask, patch by patch."""
        logits = clipped_logit(region_probabilities(visit.logits, self.outputs).cpu().numpy())
        images, decisions = visit.data.float().cpu().numpy(), visit.predicted.cpu().numpy()
        main, found = self.outputs.main, []
        for image, logit, chosen, mask in zip(images, logits, decisions, visit.mask.cpu().numpy(), strict=True):
            with torch.autocast(visit.data.device.type, enabled=False):  # as for whole cases
                maps = self.learnt.failures(image, logit, chosen, asked=Asked(main, mask[0]))
            assert maps is not None
            found.append(maps[main])
        return known_everywhere(torch.from_numpy(np.stack(found))[:, None].to(visit.data.device))
