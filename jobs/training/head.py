"""The head: fitted to the features, with the temperature and the threshold that the validation images decide."""

from dataclasses import dataclass
from typing import Any

from jobs.config import TrainConfig
from jobs.metrics import calibration, classification
from jobs.metrics.arrays import Classes, Scores
from jobs.training.features import FeatureSet
from jobs.training.neuron import Neuron
from jobs.unsure_band import Band


@dataclass(frozen=True)
class Decision:
    """What is decided on the validation images."""

    temperature: float
    threshold: float
    validation: dict[str, Any]  #: figures of the validation images at that temperature and threshold
    unsure: Band | None = None  #: scores whose answers are unsure; None: no such band was asked for

    @classmethod
    def of(cls, truth: Classes, raw: Scores, config: TrainConfig) -> "Decision":
        """Decides from ``(N,)`` true classes and the uncalibrated scores of the network."""
        temperature = calibration.fit_temperature(truth, raw)
        scores = calibration.at_temperature(raw, temperature)
        threshold = calibration.choose_threshold(config.threshold, truth, scores)
        band = calibration.choose_band(config.unsure, truth, scores, threshold=threshold) if config.unsure else None
        return cls(temperature, threshold, classification.evaluate(truth, scores, threshold=threshold), band)


@dataclass(frozen=True)
class Head:
    """One sigmoid neuron, fitted twice. The first fit shows how it does on images that it has not seen."""

    trial: Neuron  #: fitted to the training split
    final: Neuron  #: fitted to the training and validation splits, so that no image is wasted
    decision: Decision

    @classmethod
    def fit(cls, features: FeatureSet, config: TrainConfig) -> "Head":
        """Fits to the features of the training and validation images. Every variant of an image is an example."""
        train, validation = features.split("train"), features.split("validation")
        trial = Neuron.fit(*train.examples(), l2=config.l2)
        decision = Decision.of(validation.classes, trial.scores(validation.variants[0]), config)
        return cls(trial, Neuron.fit(*features.examples(), l2=config.l2), decision)
