"""Features of images: computed once, on the fastest engine available, and cached."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import augment
from jobs.data.cache import ArrayCache
from jobs.data.dataset import LabelledImage
from jobs.data.loader import ImageLoader
from jobs.metrics.arrays import Classes
from jobs.progress import Advance, hushed
from jobs.training import export, network
from worker.scoring.decoder import Pixels, fingerprint
from worker.scoring.litert import Graph
from worker.settings import available_cores

#: ``(N, H, W, 3)`` uint8 RGB pixels to ``(N, …)`` float32.
Extract = Callable[[Pixels], NDArray[np.float32]]


@dataclass(frozen=True)
class FeatureSet:
    """The features of the images that could be decoded, or their activations at a layer."""

    images: list[LabelledImage]
    variants: NDArray[np.float32]  #: ``(V, N, …)``; variant 0 is the image itself

    @property
    def classes(self) -> Classes:
        """``(N,)``, 0 or 1."""
        return np.array([image.label for image in self.images], np.int64)

    def examples(self) -> tuple[NDArray[np.float32], Classes]:
        """Returns ``(V * N, …)`` features and ``(V * N,)`` classes: every variant is an example."""
        return self.variants.reshape(-1, *self.variants.shape[2:]), np.tile(self.classes, len(self.variants))

    def split(self, name: str) -> "FeatureSet":
        """Returns those of one split."""
        chosen = [number for number, image in enumerate(self.images) if image.split == name]
        return FeatureSet([self.images[number] for number in chosen], self.variants[:, chosen])


@dataclass(frozen=True)
class Extractor:
    """A frozen network as a function, and a key made of everything that its output depends on."""

    run: Extract
    key: str

    @classmethod
    def of(cls, model: keras.Model, *, image_size: int, precision: str, on_gpu: bool) -> "Extractor":
        """Uses LiteRT on a CPU, where it is five times as fast as Keras, and Keras on a GPU or without TensorFlow.

        The key names the model as well as its weights: two cuts can have the same weights below them.
        """
        by_litert = not on_gpu and keras.backend.backend() == "tensorflow" and precision == "float32"
        engine = f"litert{metadata.version('ai-edge-litert')}" if by_litert else keras.backend.backend()
        weights = network.digest(model)[:16]
        key = f"{fingerprint()[:16]}-{image_size}-{engine}-{precision}-{model.name}-{weights}"
        return cls(_by_litert(model) if by_litert else network.predict_in_batches(model), key)

    def extract(
        self, images: list[LabelledImage], loader: ImageLoader, *, variants: int, cache: ArrayCache, advance: Advance
    ) -> FeatureSet:
        """Passes every variant of every image through the network, or takes the result from ``cache``.

        The images are sorted by name first, so that another split of the same images uses the same cached chunks.
        """
        ordered = sorted(images, key=lambda image: image.ref)
        computed = [
            loader.compute(
                ordered,
                functools.partial(self._extract_variant, variant),
                cache=cache.at(f"{self.key}/view-{variant}"),
                advance=advance,
            )
            for variant in range(variants)
        ]
        return FeatureSet(computed[0].images, np.stack([found.values for found in computed]))

    def _extract_variant(self, variant: int, pixels: Pixels, images: Sequence[LabelledImage]) -> NDArray[Any]:
        pairs = zip(pixels, images, strict=True)
        return self.run(np.stack([augment(image_pixels, variant, image.sha256) for image_pixels, image in pairs]))


def _by_litert(model: keras.Model) -> Extract:
    """Converts the model when it is first run. That takes a second, which a job with cached features saves."""
    graph: list[Graph] = []

    def run(pixels: Pixels) -> NDArray[np.float32]:
        if not graph:
            with hushed():  # what the converter and LiteRT print would split the progress bar
                graph.append(Graph(export.to_litert_bytes(model)))
                graph[0].warm()
        return graph[0].run_all(pixels, threads=available_cores())

    return run
