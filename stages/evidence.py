"""What a network sees of paths and of the pictures that they fetch, and what its answer changes: notebook 07."""

from __future__ import annotations

import cv2
import numpy as np

from stages import blending, motion

WORKING = motion.GRID  # px: the area of the copies on which a network weighs what is fetched from larger frames
PICTURES = 11  # that a network weighs
DESCRIBED = 39  # channels of `describe`; these of them are x-components, and each one's y follows it:
ACROSS = [13 * side + 2 * k for side in range(2) for k in range(6)]
LEAST = 0.004  # what all weights have more than a rule gives


def one_sided(paths: motion.Paths, side: int) -> np.ndarray:
    """Shifts to an inner frame by its own side alone, a straight line: for what is hidden on the other side.

    Args:
        paths: from `motion.follow`.
        side: 0 for the inner frame before, 1 for the one after.

    Returns:
        float32 `[h, w, 2]`, px of the grid; those of the path where the side has one frame.
    """
    inner, outer = 2 + side, 1 + 3 * side
    if paths.slots[outer] < 0:
        return paths.shifts[side]
    share = (paths.moments[inner] - paths.position) / (paths.moments[outer] - paths.moments[inner])
    return share * (paths.shift_to(side, outer) - paths.shift_to(side, inner))


def alone(paths: motion.Paths, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Shifts to a side's inner frame, and to the outer one next to it, by `one_sided` and by what the camera did.

    A straight line knows nothing of a hand that turns. How far paths are from such lines, in the median over the
    picture, is taken for that.

    Args:
        paths: from `motion.follow`.
        side: 0 for the frames before, 1 for those after.

    Returns:
        Two of float32 `[h, w, 2]`, px of the grid; twice the same where the side has one frame.
    """
    straight, inner, outer = one_sided(paths, side), 2 + side, 1 + 3 * side
    camera = np.median((paths.shifts[side] - straight)[::4, ::4], axis=(0, 1))
    ratio = (paths.moments[outer] - paths.position) / (paths.moments[inner] - paths.position)
    return straight + camera, straight * np.float32(ratio if paths.slots[outer] >= 0 else 1) + camera


def describe(paths: motion.Paths, fit) -> np.ndarray:
    """What a network may know of the paths: float32 `[h, w, 39]`, distances as their inverse hyperbolic sines.

    For either side: how far the outer four places are from the straight line through the inner two, how far the
    one-sided shift is from the path's, the way between the inner two in units of 4 px (x and y of each), and how far
    the two sides are apart. Then how far the outer four places are trusted, from either side; whether these slots hold
    a frame; and the moment's position.

    Args:
        paths: from `motion.follow`.
        fit: a function that gives what is known for each pixel of the grid, or every second one, the size `[h, w]`.
    """
    outer, described = [0, 1, 4, 5], []
    for side in range(2):
        described += [*paths.bends[side, outer], one_sided(paths, side) - paths.shifts[side]]
        described += [paths.across[side] / 4, blending.between_sides(paths, side)]
    known = [float(paths.slots[slot] >= 0) for slot in outer] + [paths.position]
    seen = [np.arcsinh(fit(part)) for part in described]
    seen += [fit(part) for part in paths.trust[:, outer].reshape(-1, *paths.trust.shape[2:])]
    return cv2.merge([*seen, *(np.full(seen[0].shape[:2], value, np.float32) for value in known)])


def gather(frames, paths: motion.Paths) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Eleven pictures for a network to weigh, and their weights by rules.

    The first four and the last are the classic's (`blending.fetch_pictures`). Then come the same pixels in the outer
    four frames, t-2, t-3, t+2, t+3: found from the inner frame next to them, and trusted as far as they look like it.
    What is filmed six times has less noise. Where there is no such frame, its neighbour's stand once more, with no
    weight. Then each inner frame's pixels `alone`: for what the other side hides. They count where neither pair agrees,
    as far as the two frames of their own side do.

    Returns:
        Eleven of uint8 `[H, W, 3]`; ten of float32 `[H / 2, W / 2]`, 0 to 1, and one `[H, W]`, 0 to 1000.
    """
    (*fetched, average), (*trusted, stand) = blending.fetch_pictures(frames, paths)
    halves = [blending.halve(picture) for picture in fetched]
    for side, slots, share in ((0, (1, 0), 1 - paths.position), (1, (4, 5), paths.position)):
        outer = fetched[3 * side]
        for slot in slots:
            if there := paths.slots[slot] >= 0:
                outer = motion.fetch(frames[paths.slots[slot]], paths.shift_to(side, slot))
            fetched.append(outer)
            alike = blending.small(blending.difference(halves[3 * side], blending.halve(outer), 3), 6)
            trusted.append(alike * np.float32(0.4 * share * there))
    differ = cv2.min(*(blending.difference(*halves[k : k + 2], 3) for k in (0, 2)))
    for side, outer in enumerate(blending.OUTER):
        shift, further = alone(paths, side)
        fetched.append(motion.fetch(frames[paths.slots[2 + side]], shift, cv2.INTER_LINEAR))
        there = motion.fetch(blending.halve(frames[paths.slots[outer]]), further, cv2.INTER_LINEAR)
        alike = blending.small(blending.difference(blending.halve(fetched[-1]), there, 3), 6)
        trusted.append(alike * (1 - blending.small(differ, 16)) * np.float32(0.5 * (paths.slots[outer] >= 0)))
    return [*fetched, average], [*trusted, stand]


def look(
    frames, paths: motion.Paths, pictures: list, weights: list, largest: int = WORKING
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network looks at: pictures, the rules' weights, and `describe`, on a copy if the frames are large.

    Args:
        frames: n of uint8 `[H, W, 3]`.
        paths: from `motion.follow`.
        pictures, weights: of `gather`.
        largest: px, the area of frames that are shown as they are.

    Returns:
        uint8 `[h, w, 39]` (the inner two frames as they stand come last), float32 `[h, w, 11]`, and float32
        `[h / 2, w / 2, 39]`; h and w are multiples of 16. A small frame's edges are repeated below and on the right, a
        larger one's copy has an area of about `largest`.
    """
    height, width = pictures[0].shape[:2]
    scale = min(1.0, (largest / (height * width)) ** 0.5)
    size = [-(-round(side * scale) // 16) * 16 for side in (height, width)]

    def fit(image: np.ndarray, part: int = 1) -> np.ndarray:
        """The image on the network's copy, or on one that is half as large."""
        if scale < 1:
            return cv2.resize(image, (size[1] // part, size[0] // part), interpolation=cv2.INTER_AREA)
        kernel = cv2.INTER_AREA if image.shape[1] > width // part else cv2.INTER_LINEAR
        image = cv2.resize(image, (width // part, height // part), interpolation=kernel)
        below, right = size[0] // part - image.shape[0], size[1] // part - image.shape[1]
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)

    seen = [fit(picture) for picture in (*pictures, *(frames[slot] for slot in paths.slots[2:4]))]
    rule = cv2.merge([fit(weight) for weight in weights])
    return cv2.merge(seen), rule, describe(paths, lambda part: fit(part, 2))


def correct(weights: list, correction: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The rules' weights, and `LEAST` more, multiplied by e to the power of a network's correction.

    Args:
        weights: of `gather`.
        correction: float32 `[h, w, 11]`, of frames as `look` shows them.
        size: height and width of the frames.

    Returns:
        Eleven of float32, of the weights' sizes, or of a small frame's own; their sum is any.
    """
    height, width = size
    whole = height * width <= WORKING
    factors = map(np.exp, cv2.split(correction[:height, :width] if whole else correction))
    sizes = [(width, height) if whole else weight.shape[::-1] for weight in weights]
    return [(cv2.resize(w, at) + np.float32(LEAST)) * cv2.resize(f, at) for w, f, at in zip(weights, factors, sizes)]
