"""The arrays that every metric takes."""

import numpy as np
from numpy.typing import NDArray

#: ``(N, D)``: one row an image, as the backbone gives it.
Features = NDArray[np.float32]
#: ``(N,)``, 0 or 1: the true classes, or those that a model predicts.
Classes = NDArray[np.int64]
#: ``(N,)``, 0 to 1: P(class 1), as a model gives it.
Scores = NDArray[np.float64]
