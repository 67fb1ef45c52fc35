"""The head: fitted, and what the validation images, which its first fit did not see, decide about it."""

from dataclasses import dataclass
from typing import Any

from jobs.config import TrainConfig
from jobs.metrics import calibration, classification
from jobs.metrics.arrays import Classes, Scores
from jobs.training.features import Learned
from jobs.training.neuron import Neuron


@dataclass(frozen=True)
class Decision:
    """What the validation images were good for."""

    temperature: float
    threshold: float
    validation: dict[str, Any]  #: the figures there, at that temperature and threshold

    @classmethod
    def of(cls, truth: Classes, raw: Scores, config: TrainConfig) -> "Decision":
        """From ``(N,)`` true classes and scores as the network gave them."""
        temperature = calibration.fit_temperature(truth, raw)
        scores = calibration.at_temperature(raw, temperature)
        threshold = calibration.choose_threshold(config.threshold, truth, scores)
        return cls(temperature, threshold, classification.evaluate(truth, scores, threshold=threshold))


@dataclass(frozen=True)
class Head:
    """One sigmoid neuron, fitted twice: a first fit tells how it does on images it has not seen."""

    trial: Neuron  #: fitted to the training split alone
    final: Neuron  #: to the validation split too: nothing is kept back
    decision: Decision

    @classmethod
    def fit(cls, learned: Learned, config: TrainConfig) -> "Head":
        """From the features of the training and validation images; every view is an example to learn from."""
        train, held = learned.of("train"), learned.of("validation")
        trial = Neuron.fit(*train.flat(), l2=config.l2)
        decision = Decision.of(held.classes, trial.scores(held.views[0]), config)
        return cls(trial, Neuron.fit(*learned.flat(), l2=config.l2), decision)
