"""python classify.py EXPORT IMAGE...: what an exported student sees in images, with onnxruntime and Pillow alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

folder, *images = map(Path, sys.argv[1:])
how = json.loads((folder / "preprocess.json").read_text())
labels = (folder / "labels.txt").read_text().splitlines()
session = onnxruntime.InferenceSession(folder / "model.onnx")


def cut(image: Image.Image) -> np.ndarray:
    """What the student takes of an image, (size, size, channels)."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image, size = image.convert("L" if how["channels"] == 1 else "RGB"), how["size"]
    if how["fit"] == "pad" and max(image.size) <= size < 2 * min(image.size):
        left, top = (size - image.width) // 2, (size - image.height) // 2
    elif image.size != (size, size):
        short = round(size / how["crop"])
        scale = short / min(image.size)
        image = image.resize([max(short, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
        left, top = -((image.width - size) // 2), -((image.height - size) // 2)
    else:
        left = top = 0
    picture = Image.new(image.mode, (size, size))
    picture.paste(image, (left, top))
    pixels = np.asarray(picture, np.float32).reshape(size, size, -1) / 255
    return pixels if how["in_graph"] else (pixels - np.float32(how["mean"])) / np.float32(how["std"])


for path in images:
    (scores,) = session.run(None, {"image": cut(Image.open(path)).transpose(2, 0, 1)[None]})
    print(path, labels[int(scores.argmax())])
