"""Any dataset as pixels on disk: found, checked, split, decoded once.

`survey` is cheap and tells what there is; `decode` opens every picture once and gives a `DataBundle`; `to_pixels` is
the very path from a picture to pixels that the store was filled by.
"""

from autobackbone.data.bundle import DataBundle, decode
from autobackbone.data.encoded import Pixels
from autobackbone.data.excerpt import PartSource, excerpt, excerpt_for_time, restricted, within_time
from autobackbone.data.parts import LEFT_OUT, PART_CODES, TEST, TRAIN, VALIDATION, fair_order
from autobackbone.data.pictures import Picture
from autobackbone.data.preparation import Preparation, to_pixels
from autobackbone.data.sources import Fingerprint, Source, printable
from autobackbone.data.store import bytes_of, stored_bytes
from autobackbone.data.surveying import DataWarning, Survey, survey
from autobackbone.data.timing import preprocess_ms

__all__ = [
    "LEFT_OUT",
    "PART_CODES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "DataBundle",
    "DataWarning",
    "Fingerprint",
    "PartSource",
    "Picture",
    "Pixels",
    "Preparation",
    "Source",
    "Survey",
    "bytes_of",
    "decode",
    "excerpt",
    "excerpt_for_time",
    "fair_order",
    "preprocess_ms",
    "printable",
    "restricted",
    "stored_bytes",
    "survey",
    "to_pixels",
    "within_time",
]
