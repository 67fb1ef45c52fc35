"""Fine-tuning: the top of the backbone learns too, at a low rate, and stays as it was unless that helps.

Below the cut nothing changes, so the activations there are computed once. What is learned from are those.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.config import TrainConfig
from jobs.data.cache import Shelf
from jobs.metrics import calibration
from jobs.metrics.arrays import Scores
from jobs.training import network
from jobs.training.features import Learned
from jobs.training.interruption import Interruption
from jobs.training.neuron import Neuron

#: Epochs without a better validation loss before it stops.
PATIENCE: Final = 3


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning came to, by the calibrated log loss on the validation split, in nats."""

    layers: int  #: that could learn, BatchNormalization left out
    cut: str  #: the layer whose activations were computed once
    epochs: int  #: gone through
    loss_before: float
    loss_best: float  #: after the best of the epochs

    @property
    def kept(self) -> bool:
        """Only what does better on images it did not learn from."""
        return self.loss_best < self.loss_before

    def __str__(self) -> str:
        losses = f"validation loss {self.loss_before:.4f} before, {self.loss_best:.4f} at best"
        return f"{self.epochs} epochs, {losses}: {'kept' if self.kept else 'no better, left as it was'}"

    def as_json(self) -> dict[str, Any]:
        """For the evaluation."""
        return asdict(self) | {"kept": self.kept}


def find_cut(backbone: keras.Model, layers: int) -> str:
    """The highest layer, at least ``layers`` below the top, through which everything above it is reached.

    A residual block has two ways through it, so a cut lies between blocks and a little more than ``layers`` is above.
    """
    position = {layer.name: number for number, layer in enumerate(backbone.layers)}
    lowest = len(backbone.layers)  # the lowest input of any layer looked at so far, from the top down
    for number in range(len(backbone.layers) - 1, 0, -1):
        if number <= len(backbone.layers) - 1 - layers and lowest >= number:
            return str(backbone.layers[number].name)
        lowest = min([lowest, *(position[name] for name in _inputs(backbone.layers[number]))])
    return str(backbone.layers[0].name)


def _inputs(layer: keras.Layer) -> Iterator[str]:
    # The first node is the backbone's own; later ones are of models that share the layer.
    for tensor in layer._inbound_nodes[0].input_tensors:  # noqa: SLF001 - Keras tells of edges nowhere else
        yield tensor._keras_history.operation.name  # noqa: SLF001 - see above


class FineTuning:
    """One run of it. ``above`` goes from the activations at the cut to P(class 1), and shares the layers it changes."""

    def __init__(self, backbone: keras.Model, head: keras.layers.Dense, cut: str, config: TrainConfig) -> None:
        self._config = config
        self._cut = cut
        # BatchNormalization keeps ImageNet's statistics. That its layers are not trainable is what makes sure of it:
        # training=False, given when the model was built, is overruled by fit() in Keras 3.
        learning = [
            layer
            for layer in backbone.layers[-config.fine_tune :]
            if not isinstance(layer, keras.layers.BatchNormalization)
        ]
        backbone.trainable = True
        for layer in backbone.layers:
            layer.trainable = any(layer is one for one in learning)
        self.layers = len(learning)
        # In the backbone's precision, or Keras would not scale the loss: small gradients are 0 in 16 bits.
        with network.precision(backbone.dtype_policy.name):
            self.above = network.build_upper(backbone, cut, head)
        # After trainable was changed, or the change would not count.
        self.above.compile(optimizer=keras.optimizers.RMSprop(config.fine_tune_rate), loss="binary_crossentropy")
        self.above.optimizer.build(self.above.trainable_variables)

    def run(
        self,
        learned: Learned,
        held: Learned,
        *,
        shelf: Shelf,
        interruption: Interruption,
        advance: Callable[[int], None],
    ) -> Outcome:
        """Learns until it no longer helps, and leaves the layers at their best, or as they were.

        Its state goes to ``shelf`` after each epoch, and in the middle of one when the job is interrupted.
        """
        before = self._loss(held)
        state = _State.start(self.above, before) if (kept := shelf.get("state")) is None else _State.load(kept)
        state.apply(self.above)
        advance(state.epoch)
        while state.epoch < self._config.fine_tune_epochs and state.epoch - state.best_epoch < PATIENCE:
            with interruption.deferred() as is_asked:
                for features, classes in self._batches(learned, state.epoch, start=state.step):
                    self.above.train_on_batch(features, classes)
                    state.step += 1
                    if is_asked():
                        break
                else:
                    state.end_epoch(self._loss(held), self.above)
                    advance(1)
                shelf.put("state", state.dump(self.above))
        state.restore_best(self.above)
        return Outcome(self.layers, self._cut, state.epoch, before, state.best_loss)

    def scores(self, held: Learned) -> Scores:
        """``(N,)`` P(class 1) of the pictures themselves, without their other views."""
        scores: Scores = self.above.predict(held.views[0], batch_size=64, verbose=0)[:, 0].astype(np.float64)
        return scores

    def neuron(self) -> Neuron:
        """The head as it is now."""
        weights, bias = self.above.layers[-1].get_weights()
        return Neuron(weights[:, 0].astype(np.float64), float(bias[0]))

    def _loss(self, held: Learned) -> float:
        return calibration.calibrated_loss(held.classes, self.scores(held))

    def _batches(self, learned: Learned, epoch: int, *, start: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """An epoch's batches from number ``start`` on: each image once, as one of its views. The same in every run."""
        random = np.random.default_rng([self._config.seed, epoch])
        count, size = len(learned.images), self._config.batch_size
        order, views = random.permutation(count), random.integers(len(learned.views), size=count)
        for first in range(start * size, count, size):
            chosen = order[first : first + size]
            yield learned.views[views[chosen], chosen], learned.classes[chosen].astype(np.float32)


@dataclass
class _State:
    """Where fine-tuning is: enough to go on from as if nothing had happened."""

    weights: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    best: list[NDArray[Any]]
    best_loss: float
    best_epoch: int
    epoch: int = 0
    step: int = 0  #: of the epoch

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
