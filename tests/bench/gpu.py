"""The speed of training's two heavy steps on a GPU: features, and fine-tuning. LiteRT on the processor stands beside.

    KERAS_BACKEND=jax python -m tests.bench.gpu --graph models/pets/v1/model.tflite

The pixels are random, since no step depends on what an image shows. Decoding is left out: see the worker's benchmark.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray

from jobs.config import TrainConfig
from jobs.data.cache import ArrayCache
from jobs.data.dataset import LabelledImage
from jobs.store import open_store
from jobs.training import backbone, devices, network
from jobs.training.features import FeatureSet
from jobs.training.fine_tuning import FineTuning, find_cut
from jobs.training.interruption import Interruption
from jobs.training.neuron import Neuron
from worker.scoring.litert import Scorer
from worker.settings import available_cores

_SIZE_PX: Final = 160


def main() -> None:
    """Measures, and prints a line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="auto", help="of the backbone, as for twofold train run")
    parser.add_argument("--graph", type=Path, help="a model.tflite of 160 pixels, for LiteRT on the processor")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (options.images, _SIZE_PX, _SIZE_PX, 3), np.uint8)
    engine = f"Keras {keras.version()} with {keras.backend.backend()}, {devices.gpus() or 'no GPU'}"
    print(f"{engine}, {available_cores()} cores, {options.images:,} images, medians of {options.runs}")
    features = {}
    for precision in ("float32", "mixed_float16"):
        with network.precision(precision):
            loaded, _ = backbone.load(options.weights, image_size=_SIZE_PX)
            extract = network.predict_in_batches(network.build_extractor(loaded, image_size=_SIZE_PX))
            features[precision] = extract(pixels)  # the first pass compiles
            _report(f"features, {precision}", options, partial(extract, pixels))
            _report(f"fine-tuning, {precision}, one epoch", options, _epoch(loaded, pixels, precision))
    off = np.abs(features["mixed_float16"] - features["float32"]).mean() / np.abs(features["float32"]).mean()
    print(f"features in 16 bits differ from those in 32 by {off:.2%} on average")
    if options.graph:
        scorer = Scorer(options.graph.read_bytes())
        scorer.score_all(pixels[:100], threads=available_cores())
        _report("scores, LiteRT on the processor", options, lambda: scorer.score_all(pixels, threads=available_cores()))


def _epoch(loaded: keras.Model, pixels: NDArray[np.uint8], precision: str) -> Callable[[], object]:
    """Returns one epoch of fine-tuning above the recipe's cut, without the activations below it."""
    config = TrainConfig(data="random", output="nowhere", fine_tune=20, fine_tune_epochs=1)
    cut = find_cut(loaded, config.fine_tune)
    lower = network.predict_in_batches(network.build_lower(loaded, cut, image_size=_SIZE_PX))
    head = network.as_layer(Neuron(np.zeros(1280), 0.0), config)
    images = [LabelledImage(Path(), str(number), number % 2) for number in range(len(pixels))]
    train = FeatureSet(images, lower(pixels)[None])
    few = FeatureSet(images[:64], train.variants[:, :64])
    with network.precision(precision):
        tuning = FineTuning(loaded, head, cut, config)
    tuning.upper.train_on_batch(train.variants[0, :32], train.classes[:32].astype(np.float32))  # compiles

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            cache = ArrayCache(open_store(folder), "fine-tuning")
            tuning.run(train, few, cache=cache, interruption=Interruption(), advance=lambda _: None)

    return run


def _report(what: str, options: argparse.Namespace, work: Callable[[], object]) -> None:
    times = []
    for _ in range(options.runs):
        started_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - started_s)
    print(f"{what:40} {options.images / statistics.median(times):10,.0f} images a second", flush=True)


if __name__ == "__main__":
    main()
