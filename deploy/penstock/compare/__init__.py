"""Online training against training on stored simulations: runs, table and figure."""

from penstock.compare.compare import Plan, compare, draw
from penstock.compare.table import improvement, markdown
from penstock.compare.variants import Outcome, Variant, overrides, penstock, run_variant

__all__ = [
    "Outcome",
    "Plan",
    "Variant",
    "compare",
    "draw",
    "improvement",
    "markdown",
    "overrides",
    "penstock",
    "run_variant",
]
