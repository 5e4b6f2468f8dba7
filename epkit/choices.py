"""The words that parameters and the functions that act on them share: a module that imports nothing heavy."""

from typing import Literal

Averaging = Literal["shortcut", "explicit"]  # of N read-outs: one draw of their mean, or N draws
Estimator = Literal["centered", "positive", "negative"]  # of the gradient: which nudged phases it compares
