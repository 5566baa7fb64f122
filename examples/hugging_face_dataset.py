"""A dataset of the Hugging Face library, searched on as it is: images, class names and splits are read from it.

python examples/hugging_face_dataset.py photos/ 10min

`datasets.load_dataset("…")` gives such a dataset from the hub; here one is made of a folder, so that nothing is
fetched.
With nothing said it takes half a minute on handwritten digits.
"""

import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from small_data import digits_folder

from autobackbone import select_backbone


def as_dataset(folder: str) -> DatasetDict:
    """A column of images and one of classes, with a test split of its own."""
    files = [path for path in sorted(Path(folder).glob("*/*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    names = sorted({path.parent.name for path in files})
    columns = {"image": [str(path) for path in files], "label": [names.index(path.parent.name) for path in files]}
    whole = Dataset.from_dict(columns, features=Features({"image": Image(), "label": ClassLabel(names=names)}))
    return whole.train_test_split(test_size=0.2, seed=0, stratify_by_column="label")


def main(folder: str = "", budget: str = "20s") -> None:
    dataset = as_dataset(folder or digits_folder())
    print(dataset)
    result = select_backbone(dataset, budget)
    print(result)
    print(result.choice.reason)

    # Rows of the dataset are pictures like any others.
    rows = dataset["test"].select(range(3))
    print([row["label"] for row in rows], result.predict([row["image"] for row in rows]))


if __name__ == "__main__":
    main(*sys.argv[1:])
