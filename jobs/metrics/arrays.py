"""The types of the arrays that metrics take. Whatever imports them needs neither SciPy nor scikit-learn."""

import numpy as np
from numpy.typing import NDArray

#: ``(N, D)``: the output of the backbone, one row per image.
Features = NDArray[np.float32]
#: ``(N,)``, 0 or 1: the true classes, or the predicted ones.
Classes = NDArray[np.int64]
#: ``(N,)``, 0 to 1: P(class 1) according to a model.
Scores = NDArray[np.float64]
