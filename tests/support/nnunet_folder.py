"""A raw dataset folder of nnU-Net, made of phantoms."""

import json
import shutil

from uncseg.dataset.phantom import write_phantoms


def write_nnunet_folder(folder, task, cases, size, seed, **dataset_json):
    """Write imagesTr, labelsTr and dataset.json, and return the names of the cases.

    Args:
        folder: of the dataset.
        task: of the phantoms; its masks have the numbers of its labels.
        cases, size, seed: of the phantoms.
        dataset_json: fields to set in the file.
    """
    phantoms = folder.with_name(f"{folder.name}_phantoms")
    written = write_phantoms(phantoms, cases=cases, size=size, seed=seed, task=task)
    convention = task.conventions[task.convention]
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in written:
        for number, modality in enumerate(task.modalities):
            image = case / f"{case.name}{convention.images[modality]}.nii.gz"
            shutil.copy(image, folder / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
        shutil.copy(case / f"{case.name}{convention.mask}.nii.gz", folder / "labelsTr" / f"{case.name}.nii.gz")
    content = {
        "channel_names": {str(number): modality for number, modality in enumerate(task.modalities)},
        "labels": {"background": 0, **task.labels},
        "numTraining": len(written),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content | dataset_json), encoding="utf-8")
    shutil.rmtree(phantoms)
    return [case.name for case in written]
