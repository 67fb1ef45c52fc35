"""The head: fitted, and what the validation images, which its first fit did not see, decide about it."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from jobs import calibration, metrics, network
from jobs.config import TrainConfig
from jobs.features import Learned
from jobs.metrics import Scores, Truth
from jobs.shelf import Shelf


@dataclass(frozen=True)
class Decision:
    """What the validation images were good for."""

    temperature: float
    threshold: float
    validation: dict[str, Any]  #: the figures there, at that temperature and threshold

    @classmethod
    def of(cls, truth: Truth, raw: Scores, config: TrainConfig) -> "Decision":
        """From ``(N,)`` true classes and scores as the network gave them."""
        temperature = calibration.fit_temperature(truth, raw)
        scores = calibration.at_temperature(raw, temperature)
        threshold = calibration.choose_threshold(config.threshold, truth, scores)
        return cls(temperature, threshold, metrics.evaluate(truth, scores, threshold=threshold))


@dataclass(frozen=True)
class Head:
    """One sigmoid neuron, fitted twice."""

    trial: keras.Model  #: to the training split alone
    final: keras.Model  #: to all there is; this one is exported
    decision: Decision

    @classmethod
    def fit(cls, learned: Learned, config: TrainConfig, shelf: Shelf) -> "Head":
        """A first fit tells how it does on images it has not seen; the second keeps nothing back."""
        train, held = learned.of("train"), learned.of("validation")
        trial = _fitted("trial", train, config, shelf)
        raw = trial.predict(held.views[0], verbose=0)[:, 0].astype(np.float64)
        return cls(trial, _fitted("final", learned, config, shelf), Decision.of(held.classes, raw, config))


def _fitted(name: str, learned: Learned, config: TrainConfig, shelf: Shelf) -> keras.Model:
    head = network.build_head(learned.views.shape[-1], config)
    kept = shelf.get(f"head-{name}")
    if kept is None:
        network.fit_head(head, *learned.flat(), config)
        weights, bias = head.get_weights()
        shelf.put(f"head-{name}", {"weights": weights, "bias": bias})
    else:
        head.set_weights([kept["weights"], kept["bias"]])
    return head
