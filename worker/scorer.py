"""A LiteRT graph that scores one image at a time, from any number of threads."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from worker.errors import ErrorCode, Reject
from worker.images import Pixels
from worker.settings import available_cores


class Scorer:
    """``score`` may be called from any thread. An interpreter, 13 MB, is made only when all others are at work."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._idle: list[Interpreter] = []  # append and pop are atomic

    def score(self, pixels: Pixels) -> float:
        """P(class 1) in [0, 1] of one ``(H, W, 3)`` uint8 RGB image."""
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._open()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels[None])
        interpreter.invoke()
        score = float(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0, 0])
        self._idle.append(interpreter)
        return score

    def score_all(self, pixels: Pixels) -> NDArray[np.float64]:
        """``(N,)`` scores of ``(N, H, W, 3)`` uint8 RGB, on all cores."""
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.array(list(pool.map(self.score, pixels)))

    def check(self, *, image_size: int) -> None:
        """Scores a blank image. Raises Reject ``bad_model`` unless the graph takes and gives what it should."""
        try:
            probe = self._open()
            self._idle.append(probe)
            tensors = (*probe.get_input_details(), *probe.get_output_details())
            shapes = [(tuple(map(int, tensor["shape"])), tensor["dtype"]) for tensor in tensors]
            if shapes != [((1, image_size, image_size, 3), np.uint8), ((1, 1), np.float32)]:
                wanted = f"(1, {image_size}, {image_size}, 3) uint8 to (1, 1) float32"
                raise Reject(ErrorCode.BAD_MODEL, f"the graph goes from {shapes[:-1]} to {shapes[-1:]}, not {wanted}")
            score = self.score(np.zeros((image_size, image_size, 3), np.uint8))
        except (ValueError, RuntimeError) as error:
            raise Reject(ErrorCode.BAD_MODEL, f"LiteRT cannot load the graph: {error}") from error
        if not (math.isfinite(score) and 0.0 <= score <= 1.0):
            raise Reject(ErrorCode.BAD_MODEL, f"a blank image scores {score}, not within [0, 1]")

    def _open(self) -> Interpreter:
        # One thread an interpreter: images are the parallel unit.
        interpreter = Interpreter(model_content=self._graph, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter
