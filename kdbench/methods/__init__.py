"""Distillation losses: stateless functions of logits, a file a family.

``loss_function(name)`` finds one; what may be searched for each is data in ``kdbench.catalog.methods``.
"""

from kdbench.methods.base import Loss, LossFunction, hard, soft_cross_entropy_parts
from kdbench.methods.lookup import loss_function

__all__ = ["Loss", "LossFunction", "hard", "loss_function", "soft_cross_entropy_parts"]
