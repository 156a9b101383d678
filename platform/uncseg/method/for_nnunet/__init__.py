"""The folder in which nnU-Net's own commands find our trainer: set ``nnUNet_extTrainer`` to it.

nnU-Net imports every file of that folder as a module of its own, so nothing else may be here.
"""
