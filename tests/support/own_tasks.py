"""Tasks that no challenge has: one label, labels apart, an organ with tumours in it, many labels within one another."""

from uncseg.tasks.task import Task

PROSTATE = Task.model_validate({"name": "prostate", "modalities": ["t2w"], "labels": {"prostate": 1}})
"""One label in one modality."""
APART = Task.model_validate({"name": "apart", "modalities": ["ct"], "labels": {"spleen": 1, "kidney": 2, "aorta": 3}})
"""Three labels that share nothing but the foreground, as nnU-Net's dataset.json describes them."""
LIVER = Task.model_validate(
    {
        "name": "liver",
        "modalities": ["arterial", "venous"],
        "labels": {"liver": 1, "tumour": 2},
        "regions": {"liver": ["liver", "tumour"], "tumour": ["tumour"]},
        "main_region": "tumour",
        "phantom": {"lesions": [2, 3]},
    }
)
"""Several tumours, the main region, within an organ."""
SHELL = Task.model_validate(
    {
        "name": "shell",
        "modalities": ["a", "b", "c"],
        "labels": {f"l{number}": number for number in range(1, 6)},
        "regions": {f"from{first}": [f"l{number}" for number in range(first, 6)] for first in range(1, 6)},
        "main_region": "from2",
    }
)
"""Five labels within one another; the main region is not the outermost."""
