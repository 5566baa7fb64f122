"""What a licence allows, and what a backbone was pre-trained on."""

from __future__ import annotations

import re

from autobackbone.backbones.names import architecture_of

_OPEN = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"})
_DATASET = re.compile(
    r"in\d+k|inw\d+k|laion\w*|yfcc\w*|cc12m|jft|ig1b|openai|webli|datacomp\w*|dfn\w*|metaclip\w*|mclip\w*|lvd\w*|sat493m|"
    r"merged2b|m38m|m30m|sa1b|seer|swag|bamboo|dfndr2b|ogvl"
)


def allows_commercial(licence: str | None) -> bool:
    """Whether a licence is one of the well-known ones that allow commercial use.

    Unknown counts as no, and so does a licence of somebody's own with conditions, until a person has read it.

    Example:
        >>> allows_commercial("apache-2.0"), allows_commercial("cc-by-nc-4.0"), allows_commercial(None)
        (True, False, False)
    """
    return licence in _OPEN


def licence_note(licence: str | None) -> str:
    """What a person must be told of a licence before using a backbone; empty if nothing.

    Example:
        >>> licence_note("cc-by-nc-4.0")
        'licence cc-by-nc-4.0: commercial use not known to be allowed'
        >>> licence_note("mit")
        ''
    """
    if allows_commercial(licence):
        return ""
    return f"licence {licence or 'unknown'}: commercial use not known to be allowed"


def pretraining_of(name: str) -> str | None:
    """The data that a tag says the weights were trained on, in order; `None` if it says nothing.

    Example:
        >>> pretraining_of("convnext_base.clip_laion2b_augreg_ft_in12k_in1k")
        'laion2b+in12k+in1k'
        >>> pretraining_of("resnet50.a1_in1k")
        'in1k'
    """
    tag = name[len(architecture_of(name)) + 1 :]
    data = dict.fromkeys(token for token in tag.split("_") if _DATASET.fullmatch(token))
    return "+".join(data) or None
