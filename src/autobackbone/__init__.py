"""Which pre-trained network to start from, how much of it to fine-tune, and at what learning rate.

from autobackbone import select_backbone

result = select_backbone("photos/", "10min")
result.best
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from autobackbone.errors import AutobackboneError
from autobackbone.ownbackbone import OwnBackbone
from autobackbone.records import Budget, Candidate, Limits, Target, Trial
from autobackbone.runners import RunnerRay

if TYPE_CHECKING:
    from autobackbone._api import plan, select_backbone
    from autobackbone.backbones.catalogue import catalogue
    from autobackbone.backbones.shortlist import shortlist
    from autobackbone.comparing import Comparison, compare
    from autobackbone.kit import Kit, write_kit
    from autobackbone.planning import Plan
    from autobackbone.plots.catalogue import plot_catalogue
    from autobackbone.selection import Selection, open_run

__version__ = "0.1.0"

# Where each public name lives; imported when first asked for, since torch alone takes seconds.
_HOMES = {
    "select_backbone": "autobackbone._api",
    "plan": "autobackbone._api",
    "Plan": "autobackbone.planning",
    "Selection": "autobackbone.selection",
    "open_run": "autobackbone.selection",
    "compare": "autobackbone.comparing",
    "Comparison": "autobackbone.comparing",
    "catalogue": "autobackbone.backbones.catalogue",
    "shortlist": "autobackbone.backbones.shortlist",
    "Kit": "autobackbone.kit",
    "write_kit": "autobackbone.kit",
    "plot_catalogue": "autobackbone.plots.catalogue",
}

__all__ = [
    "AutobackboneError",
    "Budget",
    "Candidate",
    "Comparison",
    "Kit",
    "Limits",
    "OwnBackbone",
    "Plan",
    "RunnerRay",
    "Selection",
    "Target",
    "Trial",
    "__version__",
    "catalogue",
    "compare",
    "open_run",
    "plan",
    "plot_catalogue",
    "select_backbone",
    "shortlist",
    "write_kit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autobackbone' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
