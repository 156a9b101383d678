"""Plans from strangers: they may name network classes alone, unless the user trusts them."""

import json

import pytest
import torch

from uncseg.cli import main
from uncseg.console import console
from uncseg.errors import ProblemsFound
from uncseg.method.inference.model_folder import ModelFolder, open_model_folder
from uncseg.method.inference.predictor import UncertaintyPredictor
from uncseg.tracking.pyfunc_model import _load_pyfunc

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
KWARGS = {
    "n_stages": 2,
    "features_per_stage": [2, 4],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "norm_op": "torch.nn.InstanceNorm3d",
    "norm_op_kwargs": {"affine": True},
    "dropout_op": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


@pytest.fixture
def folder_of(tmp_path):
    """Write a model folder whose network has these arguments; its weights fit no network."""

    def write(network=UNET, inherits=None, name="model", **kwargs):
        architecture = {
            "network_class_name": network,
            "arch_kwargs": KWARGS | kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
        full = {"architecture": architecture, "patch_size": [8, 8, 8], "preprocessor_name": "DefaultPreprocessor"}
        configurations = {"3d_fullres": full} if inherits is None else {"3d_fullres": {"inherits_from": "a"}, "a": full}
        folder = tmp_path / name
        (folder / "fold_0").mkdir(parents=True)
        plans = {"configurations": configurations, "plans_name": "nnUNetPlans", "label_manager": "LabelManager"}
        labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
        dataset = {"labels": labels, "channel_names": dict(enumerate(("t1n", "t1c", "t2w", "t2f")))}
        for file, content in (("plans.json", plans), ("dataset.json", dataset)):
            (folder / file).write_text(json.dumps(content))
        checkpoint = {
            "network_weights": {},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": None,
            "init_args": {"configuration": "3d_fullres"},
        }
        torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
        return folder

    return write


def predict(folder, tmp_path):
    (tmp_path / "cases").mkdir(exist_ok=True)
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(folder), str(tmp_path / "cases"), str(tmp_path / "out")])
    return ended.value.code


@pytest.mark.parametrize(("name", "inherits"), [("model", None), ("nnUNetTrainer__nnUNetPlans__3d_fullres", "a")])
def test_command_in_the_plans_is_never_run(folder_of, tmp_path, capsys, monkeypatch, name, inherits):
    monkeypatch.setattr(console, "width", 600)
    ran = tmp_path / "ran"
    folder = folder_of(name=name, inherits=inherits, nonlin="os.system", nonlin_kwargs={"command": f"touch {ran}"})
    loads = (
        open_model_folder,
        lambda folder: _load_pyfunc(str(folder)),
        lambda folder: UncertaintyPredictor().load_fold(ModelFolder(folder, "3d_fullres"), 0),  # as of a run
    )
    for load in loads:
        with pytest.raises(ProblemsFound, match=r"plans\.json, 3d_fullres.*nonlin: os\.system") as caught:
            load(folder)
        assert "--trust" in caught.value.problems[0].advice
    assert predict(folder, tmp_path) == 2
    assert "nonlin: os.system" in capsys.readouterr().err
    assert not ran.exists()
    # with trust, the plans may name what they want
    assert open_model_folder(folder, trust=True).configuration == "3d_fullres"


@pytest.mark.parametrize(
    "name",
    [
        "subprocess.Popen",
        "torch.hub.load",
        "torch.nn",
        "torch.nn.init.normal_",
        "torch.nn.modules.module.torch.os.system",
        "torch.nn.modules.module.torch.hub.load",
        "torch.nn.modules.conv.torch.jit.RecursiveScriptModule",
        "torch.nn.parameter.Parameter",
        "torch.nn.modules.nowhere.Conv3d",
        "dynamic_network_architectures.architectures.unet.nn.functional.relu",
        "torch.nn.LeakyReLU.forward",
        7,
        ["torch.nn.LeakyReLU"],
    ],
)
def test_names_of_anything_but_networks_are_refused(folder_of, name):
    with pytest.raises(ProblemsFound) as caught:
        open_model_folder(folder_of(network=name, nonlin=name))
    assert [problem.found for problem in caught.value.problems] == [f"network_class_name: {name}", f"nonlin: {name}"]


@pytest.mark.parametrize(
    "network",
    [
        UNET,
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        # one that has moved since, which nnU-Net looks for by its last part
        "dynamic_network_architectures.architectures.moved.AbstractDynamicNetworkArchitectures",
    ],
)
def test_networks_of_nnunet_are_accepted(folder_of, network):
    assert open_model_folder(folder_of(network)).configuration == "3d_fullres"


def test_incomplete_plans_are_refused(folder_of):
    folder = folder_of()
    plans = json.loads((folder / "plans.json").read_text())
    wrong = [{}, {"configurations": {}}, {"configurations": {"3d_fullres": {"architecture": {}}}}]
    no_value = json.loads(json.dumps(plans))
    del no_value["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["nonlin"]
    for content in (*wrong, no_value):
        (folder / "plans.json").write_text(json.dumps(content))
        with pytest.raises(ProblemsFound, match=r"plans\.json"):
            open_model_folder(folder)
