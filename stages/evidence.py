"""What a network sees of paths and of the pictures that they fetch, and what its answer changes: notebook 07."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from stages import blending, motion

SEEN = 160 * 90  # px: about the area of the copies on which a network weighs what is fetched from larger frames
REFINED = 400 * 225  # px: what is blended of larger frames is not refined, which takes long
PICTURES = 11  # that a network weighs
DESCRIBED = 39  # channels of `describe`; these of them are x-components, and each one's y follows it:
ACROSS = [13 * side + 2 * k for side in range(2) for k in range(6)]
LEAST = 0.004  # what all weights have more than a rule gives
SHARPEN = (3, 5)  # px: pictures are sharpened by what binomial blurs of these sizes take from them
ANSWERED = PICTURES + len(SHARPEN)  # numbers a network gives for each pixel


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
    the two sides are apart; all in px of a grid of `motion.GRID` px. Then how far the outer four places are trusted,
    from either side; whether these slots hold a frame; and the moment's position.

    Args:
        paths: from `motion.follow`.
        fit: a function that gives what is known for each pixel of the grid, or every second one, the size `[h, w]`.
    """
    outer, described = [0, 1, 4, 5], []
    for side in range(2):
        bent = [*paths.bends[side, outer], one_sided(paths, side) - paths.shifts[side], paths.across[side] / 4]
        described += [*(part / np.float32(paths.unit) for part in bent), blending.between_sides(paths, side)]
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


def copy_scale(height: int, width: int) -> int:
    """How many px side by side are one in the copy of a frame that a network sees: 1 up to about 240x135 px."""
    return max(1, round((height * width / SEEN) ** 0.5))


def copy_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the copy that a network sees, before they are made multiples of 16."""
    scale = copy_scale(height, width)
    return height // scale, width // scale


def look(frames, paths: motion.Paths, pictures: list, weights: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network looks at: pictures, the rules' weights, and `describe`, on a copy if the frames are large.

    Args:
        frames: n of uint8 `[H, W, 3]`.
        paths: from `motion.follow`.
        pictures, weights: of `gather`.

    Returns:
        uint8 `[h, w, 39]` (the inner two frames as they stand come last), float32 `[h, w, 11]`, and float32
        `[h / 2, w / 2, 39]`; h and w are multiples of 16. A copy is `copy_scale` times smaller; what misses to a
        multiple of 16 is repeated below and on the right.
    """
    height, width = copy_size(*pictures[0].shape[:2])

    def fit(image: np.ndarray, part: int = 1) -> np.ndarray:
        """The image on the network's copy, or on one that is half as large."""
        size = width // part, height // part
        kernel = cv2.INTER_AREA if image.shape[1] > size[0] else cv2.INTER_LINEAR
        below, right = (-(-side // 16) * 16 // part - side // part for side in (height, width))
        return cv2.copyMakeBorder(
            cv2.resize(image, size, interpolation=kernel), 0, below, 0, right, cv2.BORDER_REPLICATE
        )

    seen = [fit(picture) for picture in (*pictures, *(frames[slot] for slot in paths.slots[2:4]))]
    rule = cv2.merge([fit(weight) for weight in weights])
    return cv2.merge(seen), rule, describe(paths, lambda part: fit(part, 2))


def compose(pictures: list, weights: list, answer: np.ndarray, rounded: bool = True) -> np.ndarray:
    """Frame of what was gathered, as a network says: uint8 `[H, W, 3]`, or float32, 0 to 255, if not rounded.

    The rules' weights, and `LEAST` more, are multiplied by e to the power of its first eleven numbers. The other two
    are shares: of what a fine blur takes away, and then a wider one, so much more is given. No colour goes beyond those
    of the pictures.

    Args:
        pictures, weights: of `gather`.
        answer: float32 `[h, w, 13]`, of `models.ask`.
        rounded: to whole levels.
    """
    height, width = pictures[0].shape[:2]
    numbers = cv2.split(answer)
    sizes = [(width, height) if copy_scale(height, width) == 1 else weight.shape[::-1] for weight in weights]
    factors = [cv2.resize(np.exp(number), at) for number, at in zip(numbers, sizes)]
    weights = [(cv2.resize(w, at) + np.float32(LEAST)) * factor for w, at, factor in zip(weights, sizes, factors)]
    drawn = blending.mix(pictures, weights)
    for size, share in zip(SHARPEN, numbers[PICTURES:]):
        share = cv2.resize(share, (width, height))
        blurred = cv2.GaussianBlur(drawn, (size, size), 0, borderType=cv2.BORDER_REFLECT)  # 0: binomial
        cv2.blendLinear(drawn, blurred, 1 + share, -share, dst=drawn)
    lowest, highest = (functools.reduce(extreme, pictures) for extreme in (cv2.min, cv2.max))
    if not rounded:
        return np.clip(drawn, lowest, highest)
    return cv2.min(cv2.max(cv2.add(drawn, 0, dtype=cv2.CV_8U), lowest), highest)
