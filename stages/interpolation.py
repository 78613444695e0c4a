"""Interpolate the frames of one shot of a video, in order, on all cores: notebook 08."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

import numpy as np

from stages import models, motion


def interpolate_shot(model, frames: Iterable[np.ndarray], times, wanted: Iterable[float]) -> Iterator[np.ndarray]:
    """Frames of one shot at the wanted moments: its own where it has one, else predicted from up to six around.

    Each pair's flows are found once. A thread for each core finds flows and predicts; a few frames are in memory.

    Args:
        model: what `load_model` returns, or a function of the neighbours.
        frames: uint8 `[H, W, 3]`, one by one, without a cut among them.
        times: of these frames, increasing.
        wanted: increasing moments from `times[0]` to `times[-1]`.

    Yields:
        uint8 `[H, W, 3]`, one for each wanted moment.

    Raises:
        ValueError: if a moment lies beyond the frames, or a model predicts the middle alone and another is wanted.
    """
    predictor, source, follows = models.FramePredictor(model), enumerate(frames), models.follows_paths(model)
    window, first = deque(), 0  # frame, grey copy, and the flows to and from the frame before, being found
    made = deque()  # frames in order, or what is being predicted

    def predict(used: list, moments, moment: float) -> np.ndarray:
        flows = [[flow.result() for flow in pair] for _, _, pair in used[1:]] if follows else None
        return predictor([frame for frame, _, _ in used], moments, moment, flows)

    with motion.workers() as pool:

        def read_until(index: int) -> None:
            while first + len(window) <= min(index, len(times) - 1):
                frame = next(source)[1]
                copy = motion.grid_copy(frame, motion.grid_for(len(times), predictor.grid)) if follows else None
                pair = (window[-1][1], copy) if window and follows else None
                flows = pair and (pool.submit(motion.find_flow, *pair), pool.submit(motion.find_flow, *pair[::-1]))
                window.append((frame, copy, flows))

        for moment in wanted:
            if not times[0] <= moment <= times[-1]:
                raise ValueError(f"The moment {moment} lies beyond the frames, from {times[0]} to {times[-1]}.")
            after = int(np.searchsorted(times, moment))
            last = min(after + 2, len(times) - 1)
            read_until(last + 1)
            while first < min(after, len(times) - 1) - 3:
                window.popleft()
                first += 1
            if times[after] == moment:
                made.append(window[after - first][0])
            else:
                used = list(itertools.islice(window, max(0, after - 3 - first), last + 1 - first))
                made.append(pool.submit(predict, used, times[last + 1 - len(used) : last + 1], moment))
            if len(made) > 2 * motion.WORKERS:
                yield finished(made.popleft())
        yield from map(finished, made)


def finished(frame) -> np.ndarray:
    """A frame, or the frame that a thread is predicting."""
    return frame.result() if isinstance(frame, Future) else frame
