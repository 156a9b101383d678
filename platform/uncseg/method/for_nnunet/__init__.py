"""What nnU-Net's own commands look through for trainers: ``export nnUNet_extTrainer=`` this folder.

nnU-Net imports every file of that folder by its bare name, so nothing else may lie here.
"""
