"""Small real pictures for examples that were given none: 500 of scikit-learn's digits, in `example-data/`."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path("example-data")


def digits_folder() -> str:
    """A folder with one sub-folder per class."""
    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images[:500], digits.target[:500], strict=True)):
        file = HERE / "digits" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15).astype("uint8")).save(file)
    return str(HERE / "digits")


def digits_table() -> str:
    """A CSV file beside it: `file`, and `ink`, the mean grey value of each picture."""
    folder = Path(digits_folder())
    files = sorted(folder.rglob("*.png"))
    ink = [float(np.asarray(Image.open(file)).mean()) for file in files]
    table = pd.DataFrame({"file": [str(file.relative_to(HERE)) for file in files], "ink": ink})
    table.to_csv(HERE / "ink.csv", index=False)
    return str(HERE / "ink.csv")
