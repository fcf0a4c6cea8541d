"""The networks of the CIFAR-100 distillation tables, made for 32 x 32 pixels and registered with timm.

A file a family: ``resnets``, ``wide_resnets``, ``vggs``, ``mobilenets``, ``shufflenets``; ``common`` holds what
they share. Importing this registers them, so that ``timm.create_model("cifar_resnet20")`` works. Each has the
structure and the number of parameters of the networks with which the tables of Tian et al. (Contrastive
Representation Distillation, arXiv:1910.10699) were made; ``cifar_`` before the tables' name in lower case is the
name here, because timm's own ``vgg13`` and ``resnet50`` are other networks.
"""

from __future__ import annotations

from kdbench.models.cifar import mobilenets, resnets, shufflenets, vggs, wide_resnets
from kdbench.models.cifar.common import CifarNet

__all__ = ["CifarNet", "mobilenets", "resnets", "shufflenets", "vggs", "wide_resnets"]
