"""From a folder of pictures to a network, and what it is worth.

python examples/folder_of_pictures.py photos/ 10min

With nothing said it takes twenty seconds on handwritten digits.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from small_data import digits_folder

from autobackbone import select_backbone


def main(folder: str = "", budget: str = "20s") -> None:
    folder = folder or digits_folder()
    result = select_backbone(folder, budget)
    print(result)
    print(result.choice.reason)
    print(result.optimism)
    for sentence in result.advice:
        print(sentence)

    # The network is a plain torch module; its own transform makes its input from a picture.
    model = result.model()
    picture = next(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    with torch.inference_mode(), Image.open(picture) as opened:
        outputs = model(model.transform(opened)[None])
    print(picture.name, model.classes[int(outputs.argmax())])

    # The same in one line, with probabilities that mean what they say.
    print(result.predict([picture]), result.predict_proba([picture]).round(3))

    # Labels to look at before a score is believed.
    print(result.suspects(5).to_string(index=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
