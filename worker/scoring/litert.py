"""LiteRT graphs, which score one image at a time from any number of threads."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from worker.errors import ErrorCode, Reject
from worker.scoring.decoder import Pixels


class Graph:
    """A graph with a pool of interpreters, 13 MB each. A new one is made only when all others are busy."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._idle: list[Interpreter] = []  # append and pop are atomic

    def run(self, pixels: Pixels) -> NDArray[np.float32]:
        """Returns the output for one ``(H, W, 3)`` uint8 RGB image, without the batch axis. Call it from any thread."""
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self.open()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
        interpreter.invoke()
        answer: NDArray[np.float32] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        self._idle.append(interpreter)
        return answer

    def run_all(self, pixels: Pixels, *, threads: int) -> NDArray[np.float32]:
        """Returns the ``(N, …)`` outputs for ``(N, H, W, 3)`` uint8 RGB images."""
        with ThreadPoolExecutor(threads) as pool:
            return np.stack(list(pool.map(self.run, pixels)))

    def warm(self) -> None:
        """Opens the first interpreter ahead of the first image. LiteRT prints a line about it, once in a process."""
        self._idle.append(self.open())

    def open(self) -> Interpreter:
        """Opens an interpreter with one thread. Images are scored in parallel instead."""
        interpreter = Interpreter(model_content=self._content, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter


class Scorer:
    """A graph whose output is P(class 1)."""

    def __init__(self, content: bytes) -> None:
        self._graph = Graph(content)

    def score(self, pixels: Pixels) -> float:
        """Returns P(class 1) in [0, 1] of one ``(H, W, 3)`` uint8 RGB image. Call it from any thread."""
        return float(self._graph.run(pixels)[0])

    def score_all(self, pixels: Pixels, *, threads: int) -> NDArray[np.float64]:
        """Returns the ``(N,)`` scores of ``(N, H, W, 3)`` uint8 RGB images."""
        return self._graph.run_all(pixels, threads=threads)[:, 0].astype(np.float64)

    def check(self, *, image_size: int) -> None:
        """Scores a blank image. Raises Reject ``bad_model`` for a graph with other inputs, outputs or scores."""
        try:
            probe = self._graph.open()
            tensors = (*probe.get_input_details(), *probe.get_output_details())
            shapes = [(tuple(map(int, tensor["shape"])), tensor["dtype"]) for tensor in tensors]
            if shapes != [((1, image_size, image_size, 3), np.uint8), ((1, 1), np.float32)]:
                wanted = f"(1, {image_size}, {image_size}, 3) uint8 to (1, 1) float32"
                raise Reject(ErrorCode.BAD_MODEL, f"the graph maps {shapes[:-1]} to {shapes[-1:]}, not {wanted}")
            score = self.score(np.zeros((image_size, image_size, 3), np.uint8))
        except (ValueError, RuntimeError) as error:
            raise Reject(ErrorCode.BAD_MODEL, f"LiteRT cannot load the graph: {error}") from error
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            raise Reject(ErrorCode.BAD_MODEL, f"a blank image scores {score}, not within [0, 1]")
