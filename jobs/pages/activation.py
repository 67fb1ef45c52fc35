"""Class activation maps: which parts of a picture speak for which class. Keras alone.

After global average pooling there is one neuron, so a picture's logit is exactly the mean, over the positions of the
last feature map, of what each position contributes, plus the bias (Zhou et al. 2016,
https://arxiv.org/abs/1512.04150). Nothing is estimated.
"""

import keras
import numpy as np
from numpy.typing import NDArray

from worker.scoring.decoder import Pixels

Maps = NDArray[np.float64]


def contributions(seen_through: keras.Model, pixels: Pixels) -> tuple[Maps, float]:
    """``(N, h, w)`` logits that each position of ``(N, H, W, 3)`` uint8 RGB pictures contributes, and the bias.

    ``seen_through`` is what ``network.see_through`` makes of the model. Above 0 speaks for class 1, below for class 0.
    The mean over a map, plus the bias, is the picture's logit.
    """
    weights, bias = seen_through.get_layer("probability").get_weights()
    maps, _ = seen_through.predict(pixels, batch_size=8, verbose=0)  # (N, h, w, 1280)
    return (maps.astype(np.float64) @ weights.astype(np.float64))[..., 0], float(bias[0])
