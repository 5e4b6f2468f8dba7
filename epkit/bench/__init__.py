# ruff: noqa: F401
# mypy: implicit-reexport
"""The read-out budget: what a board's read-outs let a network learn, and how many reads that takes."""

from .answer import Answer, budget
from .design import Design, board
from .table import signal_table
