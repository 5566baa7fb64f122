"""Any dataset as pixels on disk: found, checked, split, decoded once.

`survey` is cheap and tells what there is; `decode` opens every picture once and gives a `DataBundle`; `to_pixels` is
the very path from a picture to pixels that the store was filled by.
"""

from autobackbone.data.bundle import DataBundle, decode
from autobackbone.data.copies import Copies, codes_of, find_copies, groups_of
from autobackbone.data.encoded import Pixels
from autobackbone.data.excerpt import READING_SHARE, excerpt, excerpt_for_time, restricted, within_time
from autobackbone.data.folds import FEW_PICTURES, N_FOLDS, folds_of, pooled, wants_folds
from autobackbone.data.joining import PartSource
from autobackbone.data.parts import LEFT_OUT, PART_CODES, TEST, TRAIN, VALIDATION, Codes, fair_order
from autobackbone.data.pictures import Picture
from autobackbone.data.preparation import BORDER, Preparation, to_pixels
from autobackbone.data.sources import Fingerprint, Source, printable
from autobackbone.data.spooling import Spooling, n_streamed
from autobackbone.data.store import bytes_of, pixels_files, stored_bytes
from autobackbone.data.surveying import DataWarning, Survey, survey
from autobackbone.data.timing import preprocess_ms
from autobackbone.data.together import contradicting, look_for_copies, with_copies_together

__all__ = [
    "BORDER",
    "FEW_PICTURES",
    "LEFT_OUT",
    "N_FOLDS",
    "PART_CODES",
    "READING_SHARE",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Codes",
    "Copies",
    "DataBundle",
    "DataWarning",
    "Fingerprint",
    "PartSource",
    "Picture",
    "Pixels",
    "Preparation",
    "Source",
    "Spooling",
    "Survey",
    "bytes_of",
    "codes_of",
    "contradicting",
    "decode",
    "excerpt",
    "excerpt_for_time",
    "fair_order",
    "find_copies",
    "folds_of",
    "groups_of",
    "look_for_copies",
    "n_streamed",
    "pixels_files",
    "pooled",
    "preprocess_ms",
    "printable",
    "restricted",
    "stored_bytes",
    "survey",
    "to_pixels",
    "wants_folds",
    "with_copies_together",
    "within_time",
]
