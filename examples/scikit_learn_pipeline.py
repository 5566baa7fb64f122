"""The networks and the search as estimators of scikit-learn: features in a pipeline, then a search in its place.

python examples/scikit_learn_pipeline.py photos/ 10min

With nothing said it takes half a minute on handwritten digits.
"""

import sys
from pathlib import Path

import joblib
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_data import digits_folder

from autobackbone.plugins.sklearn import BackboneClassifier, BackboneFeatures


def main(folder: str = "", budget: str = "20s") -> None:
    folder = folder or digits_folder()
    files = [path for path in sorted(Path(folder).glob("*/*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    labels = [path.parent.name for path in files]
    train, test, train_labels, test_labels = train_test_split(files, labels, stratify=labels, random_state=0)

    # What a frozen network knows of pictures, as columns for whatever comes next.
    features = BackboneFeatures("tf_efficientnet_lite0", image_size=96)
    pipeline = make_pipeline(features, StandardScaler(), LogisticRegression(max_iter=1000))
    scores = cross_val_score(pipeline, train, train_labels, cv=3)
    print(f"frozen features: {scores.mean():.3f} ± {scores.std():.3f} in three folds")

    # A search in its place: it chooses network, image size, depth of fine-tuning and learning rate.
    classifier = BackboneClassifier(budget=budget).fit(train, train_labels)
    print(classifier.selection_)
    print(f"the found network: {classifier.score(test, test_labels):.3f} on pictures kept aside")

    # One file holds the network; whoever loads it needs neither the run nor the weights.
    joblib.dump(classifier, "classifier.joblib")
    print(joblib.load("classifier.joblib").predict(test[:3]))


if __name__ == "__main__":
    main(*sys.argv[1:])
