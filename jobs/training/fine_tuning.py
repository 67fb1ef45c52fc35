"""Fine-tuning: the top layers of the backbone are trained too, at a low rate, and restored unless that helps.

The layers below the cut never change, so their activations are computed once. The layers above are trained on those.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.metrics import calibration
from jobs.metrics.arrays import Scores
from jobs.training import network
from jobs.training.features import FeatureSet
from jobs.training.interruption import Interruption
from jobs.training.neuron import Neuron
from jobs.wording import counted

#: Epochs without a better validation loss before it stops.
PATIENCE: Final = 3


@dataclass(frozen=True)
class FineTuningResult:
    """The result, measured by the calibrated log loss on the validation split, in nats."""

    layers: int  #: trained, BatchNormalization not counted
    cut: str  #: the layer whose activations were computed once
    epochs: int
    loss_before: float
    loss_best: float  #: after the best epoch

    @property
    def kept(self) -> bool:
        """Whether the new weights do better on images that they were not trained on."""
        return self.loss_best < self.loss_before

    def __str__(self) -> str:
        losses = f"validation loss {self.loss_before:.4f} before, {self.loss_best:.4f} at best"
        verdict = "kept" if self.kept else "no better, so the layers are restored"
        return f"{counted(self.epochs, 'epoch')}, {losses}: {verdict}"

    def as_json(self) -> dict[str, Any]:
        """Returns the fields for the evaluation."""
        return asdict(self) | {"kept": self.kept}


def find_cut(backbone: keras.Model, layers: int) -> str:
    """Finds the highest layer with at least ``layers`` above it that every path from the input passes through.

    A residual block has two paths, so a cut is between blocks, and can have a few more than ``layers`` above it.
    """
    position = {layer.name: number for number, layer in enumerate(backbone.layers)}
    lowest = len(backbone.layers)  # the lowest input of any layer seen so far, from the top down
    for number in range(len(backbone.layers) - 1, 0, -1):
        if number <= len(backbone.layers) - 1 - layers and lowest >= number:
            return str(backbone.layers[number].name)
        lowest = min([lowest, *(position[name] for name in _inputs(backbone.layers[number]))])
    return str(backbone.layers[0].name)


def _inputs(layer: keras.Layer) -> Iterator[str]:
    # The first node is the backbone's own. Later ones belong to models that share the layer.
    for tensor in layer._inbound_nodes[0].input_tensors:  # noqa: SLF001 - Keras has no public access to these
        yield tensor._keras_history.operation.name  # noqa: SLF001 - see above


class FineTuning:
    """A run of fine-tuning. ``upper`` maps activations at the cut to P(class 1), and shares the layers it changes."""

    def __init__(self, backbone: keras.Model, head: keras.layers.Dense, cut: str, config: TrainConfig) -> None:
        self._config = config
        self._cut = cut
        # BatchNormalization must keep ImageNet's statistics. Only trainable = False ensures that: in Keras 3, fit()
        # overrules the training=False with which the model was built.
        trained = [
            layer
            for layer in backbone.layers[-config.fine_tune :]
            if not isinstance(layer, keras.layers.BatchNormalization)
        ]
        backbone.trainable = True
        for layer in backbone.layers:
            layer.trainable = any(layer is one for one in trained)
        self.layers = len(trained)
        # In the backbone's precision, or Keras would not scale the loss, and small gradients would be 0 in 16 bits.
        with network.precision(backbone.dtype_policy.name):
            self.upper = network.build_upper(backbone, cut, head)
        # Compiled last: a later change of ``trainable`` would have no effect.
        self.upper.compile(optimizer=keras.optimizers.RMSprop(config.fine_tune_rate), loss="binary_crossentropy")
        self.upper.optimizer.build(self.upper.trainable_variables)

    def run(
        self,
        train: FeatureSet,
        validation: FeatureSet,
        *,
        cache: ArrayCache,
        interruption: Interruption,
        advance: Callable[[int], None],
    ) -> FineTuningResult:
        """Trains until the validation loss stops improving. Leaves the layers at their best epoch, or as they were.

        The state is saved to ``cache`` after each epoch, and within an epoch when the job is interrupted.
        """
        before = self._loss(validation)
        saved = cache.get("state")
        state = _State.start(self.upper, before) if saved is None else _State.load(saved)
        state.apply(self.upper)
        advance(state.epoch)
        while state.epoch < self._config.fine_tune_epochs and state.epoch - state.best_epoch < PATIENCE:
            with interruption.deferred() as is_requested:
                for activations, classes in self._batches(train, state.epoch, start=state.step):
                    self.upper.train_on_batch(activations, classes)
                    state.step += 1
                    if is_requested():
                        break
                else:
                    state.end_epoch(self._loss(validation), self.upper)
                    advance(1)
                cache.put("state", state.dump(self.upper))
        state.restore_best(self.upper)
        return FineTuningResult(self.layers, self._cut, state.epoch, before, state.best_loss)

    def scores(self, activations: FeatureSet) -> Scores:
        """Returns ``(N,)`` P(class 1) of the images themselves, without their variants."""
        scores: Scores = self.upper.predict(activations.variants[0], batch_size=64, verbose=0)[:, 0].astype(np.float64)
        return scores

    def neuron(self) -> Neuron:
        """Returns the head as it is now."""
        weights, bias = self.upper.layers[-1].get_weights()
        return Neuron(weights[:, 0].astype(np.float64), float(bias[0]))

    def _loss(self, validation: FeatureSet) -> float:
        return calibration.calibrated_loss(validation.classes, self.scores(validation))

    def _batches(self, train: FeatureSet, epoch: int, *, start: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yields the batches of an epoch from number ``start`` on, each image once, as one of its variants.

        They depend only on the seed and the epoch.
        """
        random = np.random.default_rng([self._config.seed, epoch])
        count, size = len(train.images), self._config.batch_size
        order, variants = random.permutation(count), random.integers(len(train.variants), size=count)
        for first in range(start * size, count, size):
            chosen = order[first : first + size]
            yield train.variants[variants[chosen], chosen], train.classes[chosen].astype(np.float32)


@dataclass
class _State:
    """The state of fine-tuning: enough to resume from as if there had been no interruption."""

    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    best: list[NDArray[Any]]
    best_loss: float
    best_epoch: int
    epoch: int = 0
    step: int = 0  #: within the epoch

    @classmethod
    def start(cls, model: keras.Model, loss: float) -> "_State":
        return cls(model.get_weights(), _optimizer(model), model.get_weights(), loss, best_epoch=0)

    @classmethod
    def load(cls, arrays: dict[str, NDArray[Any]]) -> "_State":
        groups = {
            group: [arrays[f"{group}-{number}"] for number in range(int(arrays[group]))]
            for group in ("weights", "optimizer", "best")
        }
        loss = float(arrays["best_loss"])
        best_epoch, epoch, step = (int(arrays[name]) for name in ("best_epoch", "epoch", "step"))
        return cls(**groups, best_loss=loss, best_epoch=best_epoch, epoch=epoch, step=step)

    def apply(self, model: keras.Model) -> None:
        model.set_weights(self.weights)
        for variable, value in zip(model.optimizer.variables, self.optimizer, strict=True):
            variable.assign(value)

    def dump(self, model: keras.Model) -> dict[str, NDArray[Any]]:
        groups = {"weights": model.get_weights(), "optimizer": _optimizer(model), "best": self.best}
        arrays = {f"{group}-{number}": a for group, found in groups.items() for number, a in enumerate(found)}
        counts = {group: np.array(len(found)) for group, found in groups.items()}
        numbers = {name: np.array(getattr(self, name)) for name in ("best_loss", "best_epoch", "epoch", "step")}
        return arrays | counts | numbers

    def end_epoch(self, loss: float, model: keras.Model) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        if loss < self.best_loss:
            self.best_loss, self.best_epoch, self.best = loss, self.epoch, model.get_weights()

    def restore_best(self, model: keras.Model) -> None:
        model.set_weights(self.best)


def _optimizer(model: keras.Model) -> list[NDArray[Any]]:
    return [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
