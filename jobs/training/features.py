"""Images to features or activations: computed once, on the fastest thing there is, and kept."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import view
from jobs.data.cache import Shelf
from jobs.data.dataset import LabelledImage
from jobs.data.loader import Reader
from jobs.metrics.arrays import Classes
from jobs.progress import Advance
from jobs.training import export, network
from worker.scoring.decoder import Pixels, fingerprint
from worker.scoring.litert import Graph

Extract = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class Learned:
    """What is learned from: of each image that could be decoded, the values of each of its V views."""

    images: list[LabelledImage]
    views: NDArray[np.float32]  #: ``(V, N, …)``; view 0 is the picture itself

    @property
    def classes(self) -> Classes:
        """``(N,)``, 0 or 1."""
        return np.array([image.label for image in self.images], np.int64)

    def flat(self) -> tuple[NDArray[np.float32], Classes]:
        """``(V * N, …)`` values and ``(V * N,)`` classes: every view an example."""
        return self.views.reshape(-1, *self.views.shape[2:]), np.tile(self.classes, len(self.views))

    def of(self, split: str) -> "Learned":
        """Those of one split."""
        chosen = [number for number, image in enumerate(self.images) if image.split == split]
        return Learned([self.images[number] for number in chosen], self.views[:, chosen])


@dataclass(frozen=True)
class Extractor:
    """A frozen network as a function, and a name for all that its answers depend on."""

    run: Extract
    key: str

    @classmethod
    def of(cls, model: keras.Model, *, image_size: int, precision: str, on_gpu: bool) -> "Extractor":
        """LiteRT on a processor: five times as fast as Keras's predict. Keras on a GPU, and where TensorFlow is not.

        ``model`` is known by its name and its weights: two cuts can have the same weights below them.
        """
        by_litert = not on_gpu and keras.backend.backend() == "tensorflow" and precision == "float32"
        engine = f"litert{metadata.version('ai-edge-litert')}" if by_litert else keras.backend.backend()
        weights = network.digest(model)[:16]
        key = f"{fingerprint()[:16]}-{image_size}-{engine}-{precision}-{model.name}-{weights}"
        return cls(_lazily(model) if by_litert else network.predict_in_batches(model), key)

    def learn(
        self, images: list[LabelledImage], reader: Reader, *, views: int, shelf: Shelf, advance: Advance
    ) -> Learned:
        """Puts every view of every image through the network; what lies on the shelf is taken from there.

        In the order of their names, so that another split of the same images comes to the same chunks.
        """
        ordered = sorted(images, key=lambda image: image.ref)
        seen = [
            reader.compute(
                ordered,
                functools.partial(self._view, number),
                shelf=shelf.at(f"{self.key}/view-{number}"),
                advance=advance,
            )
            for number in range(views)
        ]
        return Learned(seen[0].images, np.stack([one.values for one in seen]))

    def _view(self, number: int, pixels: Pixels, images: Sequence[LabelledImage]) -> NDArray[Any]:
        pictures = zip(pixels, images, strict=True)
        return self.run(np.stack([view(picture, number, image.sha256) for picture, image in pictures]))


def _lazily(model: keras.Model) -> Extract:
    """The conversion takes a second, which a run from cached features need not wait for."""
    graph: list[Graph] = []

    def run(pixels: Pixels) -> NDArray[np.float32]:
        if not graph:
            graph.append(Graph(export.to_litert_bytes(model)))
        return graph[0].run_all(pixels)

    return run
