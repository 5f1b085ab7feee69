"""A momentum teacher: a copy whose weights are a running mean of the student's (MoCo, BYOL, DINO).

    self.teacher = teacher_of(encoder, self.projector)     # a child without gradients
    step.update(self.optimizer, loss)
    follow(self.teacher, (self.encoder, self.projector), momentum)

Only weights follow. Statistics of batch normalisation are the teacher's own, from its own passes in
training mode, as in the released code of MoCo (builder.py) and BYOL (byol_experiment.py).
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import chain
from math import cos, pi

import torch
from torch import nn


def teacher_of(*students: nn.Module) -> nn.ModuleList:
    """Copies of modules, in their order, that no gradient reaches."""
    return deepcopy(nn.ModuleList(students)).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.ModuleList, students: Sequence[nn.Module], momentum: float) -> None:
    """θ' ← m θ' + (1 − m) θ, behind an update of the students."""
    learnt = chain.from_iterable(student.parameters() for student in students)
    for own, its in zip(teacher.parameters(), learnt, strict=True):
        own.lerp_(its, 1 - momentum)


def cosine_course(start: float, end: float, done: float) -> float:
    """From `start` to `end` by half a cosine; `done` is the share of all steps, 0 to 1.

    With `end` 1 it is BYOL's τ = 1 − (1 − τ₀)(cos(πk/K) + 1)/2 (Grill et al. 2020, section 3.3).
    """
    return end - (end - start) * (cos(pi * done) + 1) / 2
