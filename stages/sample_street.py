"""The series' own footage: a street that is drawn, not filmed, so that every notebook runs without a download.

Everything stands in one world: X to the right, Y up, Z along the street, in metres, the ground at Y = 0. Houses,
ground, trees and sky are pictures on flat rectangles, each seen through a homography; people, cyclists and vehicles are
joints and faces, projected one by one. Depth gives size, speed, parallax and hiding by itself. All is drawn at twice
the size or finer, and averaged down, which keeps motion smooth below the pixel. numpy and Pillow are enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

from stages import seqinfo

SIZE, RATE = (320, 180), 30  # (width, height) in px; frames per second
CANVAS, FOCAL = (640, 360), 520.0  # px: what is drawn on, and the focal length there
FINER = 3  # moving things are drawn this many times finer than the canvas
TEXELS = 44  # px per metre of a picture
WALL, KERB = 7.0, 3.6  # metres from the middle of the street
NEAR, FAR = -12.0, 84.0  # metres: Z where the street begins and ends

# at: the camera's X, Y, Z. look: its yaw and pitch, degrees. move, turn, zoom: per frame. shake: degrees. sun: how far
# a shadow falls in X and Z per metre of height. people: how many, X range, Z range, heading (degrees, 0 = along Z) and
# metres per frame. wheels: kind, X, Z, heading, metres per frame.
# fmt: off
LEFT, RIGHT = (-6.4, -4.2), (4.2, 6.4)  # metres: where people walk on the two pavements
SCENES = {
    "street-01": dict(
        split="train", camera="fixed", seed=11, palette="brick", at=(-1.5, 2.8, 0), look=(6, 7), sun=(-0.9, -0.5),
        people=[(4, RIGHT, (11, 30), 180, .045), (4, LEFT, (12, 34), 0, .04), (3, (-3, 2), (12, 14), 90, .04),
                (2, (0, 4), (11.5, 14), -90, .045)],
        wheels=[("car", 1.8, 34, 180, .12), ("car", -2.7, 22, 180, 0), ("van", 2.7, 27, 0, 0)]),
    "street-02": dict(
        split="train", camera="fixed", seed=23, palette="brick", at=(-6.3, 2.2, 0), look=(52, 4), sun=(.35, -.7),
        people=[(4, RIGHT, (3, 16), 0, .04), (4, RIGHT, (6, 20), 180, .045), (1, (1, 1.2), (7, 8), 0, .045)],
        wheels=[("car", 2.6, 4.5, 0, 0), ("van", 2.6, 17, 0, 0)]),
    "street-03": dict(
        split="train", camera="moving", seed=37, palette="plaster", at=(-6, 1.9, 0), look=(48, 4), sun=(.5, -.6),
        move=.05, turn=.06, shake=.25, zoom=0,
        people=[(5, RIGHT, (2, 18), 0, .045), (5, RIGHT, (4, 22), 180, .045), (2, (-1.5, 0), (4, 9), 180, .05)],
        wheels=[("cyclist", .6, 2, 0, .13), ("car", 2.6, 7, 0, 0), ("car", 2.6, 13, 0, 0)]),
    "street-04": dict(
        split="train", camera="moving", seed=41, palette="plaster", at=(4.6, 1.75, -1), look=(-10, 3), sun=(.8, -.4),
        move=.035, turn=-.05, shake=.3, zoom=0,
        people=[(5, RIGHT, (6, 24), 180, .045), (3, RIGHT, (8, 26), 0, .035), (3, LEFT, (8, 26), 180, .045),
                (3, (-1, 3), (10, 13), -90, .045)],
        wheels=[("car", -1.8, 10, 0, .16), ("van", -2.7, 15, 180, 0)]),
    "street-05": dict(
        split="test", camera="fixed", seed=59, palette="harbour", at=(1.8, 2.7, 0), look=(-14, 6), sun=(.9, -.3),
        people=[(5, LEFT, (10, 28), 180, .045), (3, RIGHT, (12, 30), 0, .04), (3, (-5, 0), (11, 14), 90, .045),
                (2, (-2, 2), (11.5, 14), -90, .04)],
        wheels=[("bus", -1.7, 36, 180, .13), ("car", 2.7, 17, 0, 0), ("car", -2.7, 27, 180, 0)]),
    "street-06": dict(
        split="test", camera="moving", seed=67, palette="harbour", at=(6, 2, 0), look=(-44, 4), sun=(-.4, -.6),
        move=.04, turn=.09, shake=.28, zoom=.0008,
        people=[(5, LEFT, (2, 18), 0, .045), (5, LEFT, (5, 22), 180, .045), (2, (1, 2.5), (5, 10), 0, .045)],
        wheels=[("cyclist", -.8, 14, 180, .12), ("van", -2.6, 9, 180, 0), ("car", -2.6, 15, 180, 0)]),
}
PALETTES = {
    "brick": dict(
        walls=["#a4553d", "#c08a5a", "#8a4a3a", "#d3b58b", "#b06a4a"],
        shops=["#234d3c", "#7d1f2b", "#1f2f4a", "#c9872b"],
        sky=("#5f93cf", "#f6dcb4"), sunny=(1.12, 1.02, .88), shade=(.66, .69, .80),
        words=["BAKERY", "BOOKS", "CAFE", "SHOES", "FLOWERS", "TAILOR"]),
    "plaster": dict(
        walls=["#dcc39a", "#c9a07c", "#b9c0a4", "#d9a98f", "#a85d45"],
        shops=["#5a2d45", "#1d5c63", "#b5462f", "#d6a53a"],
        sky=("#74a7d8", "#fbe3c2"), sunny=(1.10, 1.02, .90), shade=(.70, .72, .80),
        words=["PIZZA", "OPTICS", "TOYS", "WINE", "TEA ROOM", "RECORDS"]),
    "harbour": dict(
        walls=["#6f86a0", "#d8d4c8", "#b4533c", "#8f9a94", "#d9b45c"],
        shops=["#12343b", "#8c2f39", "#264653", "#e76f51"],
        sky=("#8a9fc0", "#f3cfae"), sunny=(1.10, 1.00, .90), shade=(.68, .72, .82),
        words=["FISH BAR", "SAILS", "HOTEL", "PHARMACY", "BIKES", "ROPES"]),
}
COLOURS = {  # of what moves
    "coat": ["#8d2f2f", "#23395b", "#2f5d50", "#c8a15a", "#3b3b40", "#d8d2c4", "#6b4a7a", "#b5623a", "#7d98b3"],
    "accent": ["#d8d2c4", "#8d2f2f", "#23395b", "#c8a15a", "#2b2b30", "#7d98b3"],
    "trousers": ["#2b2f3a", "#4a4238", "#3d5575", "#22222a", "#7a6f5f"], "shoes": ["#1c1a1a", "#4a3020", "#c8c4ba"],
    "skin": ["#e8bd9c", "#c98f68", "#8a5a3c", "#f0cdb0"],
    "hair": ["#2a1c14", "#5a3a20", "#a8824a", "#18181c", "#8c8c8c"],
    "paint": ["#9c2f2b", "#2f4a6e", "#c9ccce", "#d9a441", "#3c4a45", "#e4dfd2"],
}
VEHICLES = {  # outline (forward, up) from the rear; which of its edges are glass; side panes; their height; wheels
    "car": ([(-2.1, .3), (-2.1, .85), (-1.7, .98), (-1.2, 1.45), (.3, 1.45), (1, .98), (2, .8), (2.1, .3)], (2, 4),
            [(-1.35, -.5), (-.4, .45)], (1.0, 1.36), (-1.3, 1.3)),
    "van": ([(-2.5, .3), (-2.5, 2.2), (1.2, 2.2), (1.9, 1.3), (2.5, 1.1), (2.5, .3)], (2,), [(.3, 1.25)], (1.35, 1.95),
            (-1.6, 1.6)),
    "bus": ([(-4.5, .35), (-4.5, 3.0), (4.4, 3.0), (4.5, 1.3), (4.5, .35)], (2,),
            [(-4.3 + k, -3.2 + k) for k in range(0, 8, 2)], (1.5, 2.6), (-2.8, 2.8)),
}
# fmt: on
SEQUENCES = {name: (scene["split"], scene["camera"]) for name, scene in SCENES.items()}


def colour(tone, scale=1.0) -> tuple[int, ...]:
    """Colour "#rrggbb" or (red, green, blue) times `scale`, a number or three, as (red, green, blue) within 0-255."""
    rgb = ImageColor.getrgb(tone) if isinstance(tone, str) else tone
    return tuple(int(value) for value in np.clip(np.multiply(rgb, scale), 0, 255))


class Camera(NamedTuple):
    """A pinhole camera: position `[3]` in metres, axes `[3, 3]` (right, up, forward), focal length in canvas px."""

    position: np.ndarray
    axes: np.ndarray
    focal: float

    def project(self, points) -> np.ndarray:
        """Canvas x, canvas y (px) and depth (m), float `[N, 3]`, of world points `[N, 3]`."""
        right, up, depth = ((np.asarray(points, float) - self.position) @ self.axes.T).T
        x, y = CANVAS[0] / 2 + self.focal * right / depth, CANVAS[1] / 2 - self.focal * up / depth
        return np.stack([x, y, depth], -1)


def camera_at(scene: dict, time: float) -> Camera:
    """Camera of a scene at a time in frames: where it has gone and turned to, and how the hand shakes."""
    x, height, z = scene["at"]
    yaw, pitch, roll, zoom = *scene["look"], 0.0, 1.0
    if scene["camera"] == "moving":
        sway = [np.sin(time * rate + scene["seed"] * k) for k, rate in enumerate((0.31, 0.23, 0.17, 0.53, 0.47))]
        z += scene["move"] * (time + 3 * np.sin(time * 0.08))
        yaw += scene["turn"] * time + scene["shake"] * (sway[0] + 0.4 * sway[3])
        pitch += scene["shake"] * 0.7 * (sway[1] + 0.4 * sway[4])
        roll, zoom = scene["shake"] * 0.8 * sway[2], 1 + scene["zoom"] * time
    yaw, pitch, roll = np.radians([yaw, pitch, roll])
    forward = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
    up = np.cross(forward, right)
    right, up = right * np.cos(roll) + up * np.sin(roll), up * np.cos(roll) - right * np.sin(roll)
    return Camera(np.array([x, height, z]), np.stack([right, up, forward]), FOCAL * zoom)


# ---------------------------------------------------------------------------------------------------------------------
# What stands still: pictures on flat rectangles
# ---------------------------------------------------------------------------------------------------------------------


def lighten(image: Image.Image, light) -> Image.Image:
    """An RGB picture times `light`, which broadcasts to `[H, W, 3]`."""
    pixels = np.asarray(image, np.float32) * np.asarray(light, np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def ruler(image: Image.Image, x0: float = 0.0, y0: float = 0.0):
    """Function `box(x, y, wide, tall, fill)`: a rectangle in metres, y up; x0, y0 is the origin from the lower left."""
    draw = ImageDraw.Draw(image)

    def box(x, y, wide, tall, fill):
        left, foot = (x + x0) * TEXELS, image.height - (y + y0) * TEXELS
        draw.rectangle([left, foot - tall * TEXELS, left + wide * TEXELS - 1, foot - 1], fill=fill)

    return box


def clouds(rng, size: tuple[int, int], cells: int, spread: float) -> np.ndarray:
    """Soft noise, float `[H, W]` about 0, of `size` (width, height) px, in spots of `cells` px."""
    grid = rng.normal(0, spread, (size[1] // cells + 2, size[0] // cells + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))


def masonry(rng, size, base: str, stone: tuple[int, int], contrast: float, joint: float) -> Image.Image:
    """An RGB picture of `size` (width, height) px, laid in stones of (width, height) px with joints between."""
    y, x = np.mgrid[: size[1], : size[0]]
    row = y // stone[1]
    x = x + (row % 2) * (stone[0] // 2)
    tone = rng.normal(1, contrast, (row.max() + 1, x.max() // stone[0] + 1))[row, x // stone[0]]
    tone *= np.where((y % stone[1] == 0) | (x % stone[0] == 0), joint, 1)
    tone = tone * (1 + clouds(rng, size, 30, 0.09)) * rng.normal(1, 0.03, tone.shape)
    return lighten(Image.new("RGB", size, base), tone[..., None])


def facade(rng, width: float, height: float, palette: dict) -> Image.Image:
    """RGB front of a house of width x height metres: a shop with its sign below, windows above."""
    wall, shop, trim = str(rng.choice(palette["walls"])), str(rng.choice(palette["shops"])), colour("#efe6d6")
    stones = ((18, 7), 0.10, 0.78) if rng.random() < 0.6 else ((60, 30), 0.03, 0.93)  # brick or plaster
    image = masonry(rng, (int(width * TEXELS), int(height * TEXELS)), wall, *stones)
    box, count, shutters = ruler(image), max(2, round(width / 2.2)), rng.random() < 0.4
    for floor in np.arange(3.9, height - 2.2, 2.9):
        box(0, floor - 0.45, width, 0.08, colour(wall, 0.8))
        for x in (np.arange(count) + 0.5) * width / count - 0.5:
            box(x - 0.1, floor - 0.1, 1.2, 1.95, trim)
            for pane in (0.0, 0.52):
                box(x + pane, floor, 0.48, 1.75, colour("#35475c", rng.uniform(0.7, 1.5)))
                box(x + pane, floor + 0.9, 0.48, 0.85, colour("#5d7894", rng.uniform(0.7, 1.5)))
            if rng.random() < 0.5:  # a curtain
                box(x + rng.choice([0.02, 0.7]), floor, 0.3, 1.75, colour("#d9cdb8", rng.uniform(0.7, 1.1)))
            box(x - 0.2, floor - 0.2, 1.4, 0.12, colour("#d8cdbb"))
            box(x - 0.2, floor - 0.27, 1.4, 0.07, colour(wall, 0.55))
            for side in (-0.55, 1.1) if shutters else ():
                box(x + side, floor - 0.05, 0.45, 1.85, shop)
                for slat in np.arange(0, 1.8, 0.14):
                    box(x + side + 0.05, floor + slat, 0.35, 0.05, colour(wall, 0.6))
    box(0, height - 0.55, width, 0.1, colour(wall, 0.5))
    box(0, height - 0.45, width, 0.45, trim)
    for x in np.arange(0.1, width, 0.4):
        box(x, height - 0.45, 0.18, 0.18, colour(wall, 0.7))
    box(0.15, 0, width - 0.3, 3.1, shop)
    edges = np.linspace(0.4, width - 0.4, max(3, round(width / 1.9)) + 1)
    for left, right in zip(edges[:-1] + 0.08, edges[1:] - 0.08, strict=True):
        glass, foot = rng.uniform(0.75, 1.25), rng.choice([0.1, 0.6, 0.6])  # a door or a window
        box(left, foot, right - left, 2.4 - foot, colour("#2c3a44", glass))
        box(left, 1.7, right - left, 0.7, colour("#6b7f8a", glass))
        for shelf in (0.62, 1.22):
            for x in np.arange(left + 0.08, right - 0.2, 0.24):
                tone = colour("#8d7a63", rng.uniform(0.5, 1.5) * rng.uniform(0.75, 1.2, 3))
                box(x, shelf, rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.45), tone)
        if rng.random() < 0.35:  # a poster
            box(left + 0.22, 1.15, 0.55, 0.8, "#f0e6cf")
            box(left + 0.28, 1.5, 0.43, 0.38, str(rng.choice(palette["shops"])))
        box(left, 2.5, right - left, 0.06, "#ffe2a0")
    box(0.15, 2.62, width - 0.3, 0.62, colour(shop, 0.8))
    box(0.15, 3.24, width - 0.3, 0.08, trim)
    place = (image.width / 2, image.height - 2.93 * TEXELS)
    ImageDraw.Draw(image).text(place, str(rng.choice(palette["words"])), trim, ImageFont.load_default(26), "mm")
    return image


def pavement(rng, scene: dict, palette: dict) -> Image.Image:
    """RGB ground between the walls, far end on top: paving, kerbs, asphalt, markings, the houses' shade."""
    image = masonry(rng, (int(2 * WALL * TEXELS), int((FAR - NEAR) * TEXELS)), "#b9ab98", (28, 28), 0.09, 0.72)
    road = masonry(rng, (int(2 * KERB * TEXELS), image.height), "#6d6a6b", (5, 5), 0.05, 0.97)
    image.paste(road, (int((WALL - KERB) * TEXELS), 0))
    box = ruler(image, WALL, -NEAR)
    for x, gutter in ((-KERB - 0.25, -KERB), (KERB, KERB - 0.1)):
        for z in np.arange(NEAR, FAR, 1.0):
            box(x, z, 0.25, 0.96, colour("#d8cfc0", rng.uniform(0.85, 1.05)))
        box(gutter, NEAR, 0.1, FAR - NEAR, "#3f3d40")
    for z in np.arange(NEAR, FAR, 4.0):
        box(-0.07, z, 0.14, 2.0, "#e8e2d4")
    for x in np.arange(-KERB + 0.4, KERB - 0.4, 0.9):
        box(x, 11.0, 0.45, 3.0, colour("#e8e2d4", rng.uniform(0.9, 1.0)))
    for x, z, wide, deep in rng.uniform((-6.5, -8, 0.3, 0.3), (6, 40, 0.9, 0.8), (60, 4)):  # manholes and patches
        box(x, z, wide, deep, colour("#6a6462", rng.uniform(0.6, 1.1)))
    sign, x = np.sign(scene["sun"][0]), np.arange(image.width) / TEXELS - WALL
    edge = -3.0 * sign + rng.normal(0, 0.8, image.height // 300 + 1).repeat(300)[: image.height]
    dark = (x[None] * sign < edge[:, None] * sign)[..., None]
    return lighten(image, np.where(dark, np.multiply(palette["shade"], 0.9), palette["sunny"]))


def tree(rng) -> Image.Image:
    """An RGBA tree of 4 x 6 metres."""
    image = Image.new("RGBA", (4 * TEXELS, 6 * TEXELS))
    draw = ImageDraw.Draw(image)
    draw.polygon([(x * TEXELS, y * TEXELS) for x, y in ((1.9, 6), (1.94, 3), (2.06, 3), (2.12, 6))], "#4a3a2c")
    turns = rng.uniform((0, 0.3), (6.3, 1), (14, 2))
    clumps = [(2 + 1.15 * np.cos(a) * r, 1.9 + 1.2 * np.sin(a) * r) for a, r in turns]
    for k in range(2600):  # leaves, the bright ones last, those of the lower side darker
        x, y = np.array(clumps[rng.integers(14)]) + rng.normal(0, 0.32, 2).clip(-0.7, 0.7)
        tone, size = 0.45 + 0.6 * k / 2600 - 0.22 * (y - 1.9) + rng.normal(0, 0.08), rng.uniform(1.5, 4.5)
        x, y = x * TEXELS, max(y, 0.1) * TEXELS
        draw.ellipse([x - size, y - size * 0.7, x + size, y + size * 0.7], colour("#86a04a", max(0.3, tone)))
    return image


def lamp() -> Image.Image:
    """An RGBA street lamp of 1 x 5 metres."""
    image = Image.new("RGBA", (TEXELS, 5 * TEXELS))
    draw, x = ImageDraw.Draw(image), TEXELS / 2
    draw.rectangle([x - 2, 24, x + 2, image.height], "#2a2f33")
    draw.rectangle([x - 5, image.height - 40, x + 5, image.height], "#22262a")
    draw.polygon([(x - 9, 6), (x + 9, 6), (x + 6, 28), (x - 6, 28)], "#fff0c8")
    draw.polygon([(x - 11, 8), (x, 0), (x + 11, 8)], "#22262a")
    return image


class Panel:
    """A picture on a flat rectangle: corners `[4, 3]` in metres, top left, top right, bottom right, bottom left."""

    def __init__(self, image: Image.Image, corners, haze: str | None = None):
        self.image, self.corners, self.haze, self.ready = image, np.asarray(corners, float), haze, False

    def draw(self, canvas: Image.Image, camera: Camera) -> None:
        """Draw onto an RGB canvas, through the homography from canvas to picture; nothing if it reaches behind us."""
        seen = camera.project(self.corners)
        left, top = np.clip(np.floor(seen[:, :2].min(0)), 0, CANVAS).astype(int).tolist()
        right, bottom = np.clip(np.ceil(seen[:, :2].max(0)), 0, CANVAS).astype(int).tolist()
        if seen[:, 2].min() < 0.3 or left == right or top == bottom:
            return
        if not self.ready:
            self.prepare(seen)
        (w, h), rows, values = self.image.size, [], []
        for (x, y), (u, v) in zip(seen[:, :2] - (left, top), [(0, 0), (w, 0), (w, h), (0, h)], strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            values += [u, v]
        homography, how = np.linalg.solve(rows, values).tolist(), Image.Transform.PERSPECTIVE
        patch = self.image.transform((right - left, bottom - top), how, homography, Image.Resampling.BILINEAR)
        canvas.paste(patch, (left, top), patch)

    def prepare(self, seen: np.ndarray) -> None:
        """Once, at first sight: average the picture down to about the size it is seen at, and veil it in haze."""
        sides = np.linalg.norm(seen[:, :2] - np.roll(seen[:, :2], -1, 0), axis=1)
        wanted = np.ceil(1.2 * np.sqrt(np.maximum(sides[:2], 1) * np.maximum(sides[2:], 1))).astype(int)
        size = tuple(np.minimum(self.image.size, wanted).tolist())
        self.image, self.ready = self.image.convert("RGBA").resize(size, Image.Resampling.BOX), True
        if self.haze:
            veil = Image.new("RGBA", size, self.haze)
            veil.putalpha(self.image.getchannel("A"))
            self.image = Image.blend(self.image, veil, float(1 - np.exp(-seen[:, 2].mean() / 110)))


def panels(image: Image.Image, corners, across: int, down: int, haze: str) -> list[Panel]:
    """Cut a picture and its rectangle into across x down panels, so that each is seen at nearly one size."""
    a, b, _, d = np.asarray(corners, float)
    made = []
    for u, v in np.ndindex(across, down):
        s, t = np.array([u, u + 1, u + 1, u]) / across, np.array([v, v, v + 1, v + 1]) / down
        box = [round(k) for k in (s[0] * image.width, t[0] * image.height, s[2] * image.width, t[2] * image.height)]
        made.append(Panel(image.crop(box), a + s[:, None] * (b - a) + t[:, None] * (d - a), haze))
    return made


def build_street(scene: dict, camera: Camera) -> tuple[list[Panel], list[Panel]]:
    """Panels that stand still: the backdrop in drawing order, and the trees and lamps in front of it."""
    rng, palette = np.random.default_rng(scene["seed"]), PALETTES[scene["palette"]]
    haze, (sun_x, sun_z), side = palette["sky"][1], scene["sun"], camera.axes[0] * (1, 0, 1)
    rise = np.linspace(0, 1, 400)[:, None, None]
    white = np.clip(sum(clouds(rng, (400, 400), 160 // n, 1 / n) for n in (1, 2, 4, 8)) - 0.3, 0, 1)[..., None] * 0.55
    sky = np.multiply(colour(palette["sky"][0]), 1 - rise) + np.multiply(colour(haze), rise)
    sky = sky * (1 - white) + np.array((255, 246, 232)) * white
    sky = lighten(Image.new("RGB", (400, 400), "#ffffff"), sky / 255)
    centre = (camera.position + camera.axes[2] * 300) * (1, 0, 1)
    still = [Panel(sky, [centre + side * x * 300 + (0, y, 0) for x, y in ((-1, 150), (1, 150), (1, -3), (-1, -3))])]
    for x in (-15, -7.5, 0, 7.5):  # the houses that close the street
        high = rng.uniform(9, 13)
        corners = [(x, high, FAR), (x + 7.5, high, FAR), (x + 7.5, 0, FAR), (x, 0, FAR)]
        still.append(Panel(facade(rng, 7.5, 12.0, palette), corners, haze))
    ground = [(-WALL, 0, FAR), (WALL, 0, FAR), (WALL, 0, NEAR), (-WALL, 0, NEAR)]
    still += panels(pavement(rng, scene, palette), ground, 4, 32, haze)
    standing, greens, post = [], [tree(rng) for _ in range(3)], lamp()
    for x in (-KERB - 0.7, KERB + 0.7):
        for k, z in enumerate(np.arange(4 + rng.uniform(0, 3), 50, 6.5)):
            image, wide, tall = (greens[k // 2 % 3], 4.0, 6.0) if k % 2 else (post, 1.0, 5.0)
            foot, half, up = np.array([x, 0, z]), side * wide / 2, np.array([0, tall, 0])
            standing.append(Panel(image, [foot + up - half, foot + up + half, foot + half, foot - half], haze))
            if x * sun_x > 0:  # it stands in the sun, and casts a shadow
                shadow, tip = Image.new("RGBA", image.size, "#262230"), foot + np.array([sun_x, 0, sun_z]) * tall
                shadow.putalpha(image.getchannel("A").point(lambda value: value * 0.4))
                still.append(Panel(shadow, [tip - half, tip + half, foot + half, foot - half]))
    for x in (-WALL, WALL):
        light, z, houses = palette["sunny" if x * sun_x > 0 else "shade"], NEAR, []
        while z < FAR:
            width, height = rng.uniform(5, 8), 3.9 + 2.9 * rng.integers(1, 4) + rng.uniform(0.3, 0.9)
            image = lighten(facade(rng, width, height, palette), light)
            left, right = (z, z + width) if x < 0 else (z + width, z)
            house = panels(image, [(x, height, left), (x, height, right), (x, 0, right), (x, 0, left)], 2, 1, haze)
            if rng.random() < 0.6:  # an awning over the shop
                cloth, stripe = Image.new("RGB", (300, 60), "#f1e8d8"), str(rng.choice(palette["shops"]))
                for k in range(0, cloth.width, 36):
                    cloth.paste(stripe, (k, 0, k + 18, 60))
                top, low = (x, 2.6), (x * 0.87, 2.1)
                corners = [(*top, left), (*top, right), (*low, right), (*low, left)]
                house.append(Panel(lighten(cloth, light), corners, haze))
            houses.insert(0, house)
            z += width
        still += sum(houses, [])
    return still, standing


# ---------------------------------------------------------------------------------------------------------------------
# What moves: shapes (points [N, 3], radius, RGB) in metres; a shape of radius 0 is a face, seen from one side only
# ---------------------------------------------------------------------------------------------------------------------


def person(look: dict, stride: float, riding: bool = False) -> list:
    """Shapes of somebody of height 1, in forward, side, up from the ground; `stride` is the gait's phase."""
    shapes, lift, lean = [], 0.07 if riding else 0.012 * np.cos(2 * stride), 0.13 if riding else 0.02
    for side in (-1, 1):
        phase = stride + (np.pi if side > 0 else 0)
        hip, shoulder = np.array([0, 0.05 * side, 0.52 + lift]), np.array([lean, 0.115 * side, 0.80 + lift])
        swing, bend = 0.45 * np.sin(phase), 0.12 + 0.75 * max(0.0, np.cos(phase))
        thigh, arm = swing + 0.35 * bend, -0.5 * np.sin(phase)
        knee = hip + 0.25 * np.array([np.sin(thigh), 0, -np.cos(thigh)])
        foot = knee + 0.25 * np.array([np.sin(thigh - bend), 0, -np.cos(thigh - bend)])
        elbow = shoulder + (0.17 * np.sin(arm), 0.02 * side, -0.17 * np.cos(arm))
        hand = elbow + (0.15 * np.sin(arm + 0.4), 0, -0.15 * np.cos(arm + 0.4))
        if riding:
            foot = np.array([0.12 + 0.1 * np.cos(phase), 0.06 * side, 0.16 - 0.1 * np.sin(phase)])
            knee, elbow = (hip + foot) / 2 + (0.13, 0, 0.06), shoulder + (0.12, 0, -0.12)
            hand = np.array([0.3, 0.08 * side, 0.58])
        shapes += [([hip, knee], 0.052, look["trousers"]), ([knee, foot], 0.038, look["trousers"])]
        shapes += [([foot, foot + (0.08, 0, -0.01)], 0.028, look["shoes"]), ([hand], 0.028, look["skin"])]
        shapes += [([shoulder, elbow], 0.036, look["coat"]), ([elbow, hand], 0.030, look["coat"])]
        shapes += [([hip * (1, 0.8, 1) + (0, 0, 0.03), shoulder - (0, 0.06 * side, 0.02)], 0.072, look["coat"])]
        if look["bag"] == "hand" and side > 0 and not riding:
            shapes.append(([hand - (0.05, 0, 0.1), hand - (-0.05, 0, 0.1)], 0.055, look["accent"]))
    more = [((0.01, 0.03, 0.67), (0.01, -0.03, 0.67), 0.078, "accent")]  # a stripe, or a long coat
    if look["long"] and not riding:
        more = [((0, 0, 0.34), (0, 0, 0.6), 0.1, "coat")]
    if look["bag"] == "back":
        more.append(((-0.1, 0, 0.6), (lean - 0.12, 0, 0.74), 0.07, "accent"))
    more.append(((lean, 0, 0.84), (lean, 0, 0.88), 0.032, "skin"))
    more.append(((lean, 0, 0.945), (lean - 0.01, 0, 0.93), 0.062, "hair"))
    more.append(((lean + 0.025, 0, 0.925), (lean + 0.025, 0, 0.92), 0.052, "skin"))
    return shapes + [(np.array([a, b]) + (0, 0, lift), radius, look[part]) for a, b, radius, part in more]


def cyclist(look: dict, travelled: float) -> list:
    """Shapes of a bicycle and its rider, in metres forward, side, up from the ground between the wheels."""
    circle = np.linspace(0, 2 * np.pi, 25)
    wheel = 0.34 * np.stack([np.cos(circle), 0 * circle, 1 + np.sin(circle)], -1)
    frame = [(-0.5, 0, 0.34), (-0.15, 0, 0.85), (0.4, 0, 0.82), (0.02, 0, 0.34), (-0.15, 0, 0.85), (-0.15, 0, 0.95)]
    shapes = [(wheel + (x, 0, 0), 0.025, colour("#1c1c1e")) for x in (-0.5, 0.55)]
    shapes += [(points, 0.022, look["accent"]) for points in (frame, [(0.55, 0, 0.34), (0.4, 0, 0.82), (0.38, 0, 1.0)])]
    rider = person(look, travelled / 0.3, riding=True)
    return shapes + [(np.asarray(p) * 1.68 - (0.17, 0, 0), r * 1.68, tone) for p, r, tone in rider]


def vehicle(kind: str, paint: tuple) -> list:
    """Faces of a car, a van or a bus, in drawing order, in metres forward, side, up from the ground."""
    outline, glazed, panes, (low, high), wheels = VEHICLES[kind]
    half, glass, faces = 0.85 if kind == "car" else 1.1, colour("#344250"), []
    rear, front = outline[0][0], outline[-1][0]
    for k, ((f0, y0), (f1, y1)) in enumerate(zip(outline, outline[1:] + outline[:1], strict=True)):
        tone = glass if k in glazed else colour(paint, 1.1 if y0 == y1 else 0.85)
        faces.append(([(f0, half, y0), (f0, -half, y0), (f1, -half, y1), (f1, half, y1)], 0, tone))
    flat = [(outline, paint), ([(rear, 0.3), (rear, 0.5), (front, 0.5), (front, 0.3)], colour("#1e1e21"))]
    if kind != "car":
        flat.append(([(-2.2, 1.0), (-2.2, 1.25), (2.0, 1.25), (2.0, 1.0)], colour("#f0e8d6")))
    for left, right in panes:
        slope = 0.2 if kind == "car" else 0
        flat.append(([(left, low), (left + slope, high), (right - slope / 2, high), (right, low)], glass))
        flat.append(([(left + 0.1, low + 0.05), (left + 0.3, high - 0.1), (left + 0.4, high - 0.1)], colour("#78909c")))
    for f in wheels:
        for radius, tone in ((0.36, "#1e1e21"), (0.2, "#aaacb0")):
            angles = np.linspace(0, -2 * np.pi, 20)
            flat.append(([(f + radius * np.cos(a), 0.36 + radius * np.sin(a)) for a in angles], colour(tone)))
    for side in (half, -half):
        faces += [([(f, side, y) for f, y in (points if side > 0 else points[::-1])], 0, tone) for points, tone in flat]
    for f, turn, tone in ((front + 0.02, 1, "#fff4d6"), (rear - 0.02, -1, "#be2824")):  # lamps
        for side in (-0.6, 0.6):
            corners = [(-0.18, 0.07), (-0.18, -0.07), (0.18, -0.07), (0.18, 0.07)]
            faces.append(([(f, side + a * turn, 0.68 + b) for a, b in corners], 0, colour(tone)))
    return faces


def build_movers(scene: dict) -> list[dict]:
    """Movers of a scene: kind, x, z (m), heading (degrees), speed (m per frame), looks."""
    rng, entries = np.random.default_rng(scene["seed"] + 1000), list(scene["wheels"])
    for count, xs, (near, far), heading, speed in scene["people"]:
        for place in (np.arange(count) + rng.uniform(0.2, 0.8, count)) / count:
            turn, pace = rng.normal(0, 4), speed * rng.uniform(0.8, 1.25)
            entries.append(("person", rng.uniform(*xs), near + place * (far - near), heading + turn, pace))
    movers = []
    for entry in entries:
        look = {part: colour(str(rng.choice(tones)), rng.uniform(0.85, 1.1)) for part, tones in COLOURS.items()}
        look |= dict(bag=str(rng.choice(["none", "back", "hand"])), long=rng.random() < 0.4)
        look["tall"] = rng.uniform(1.55, 1.9)  # metres
        facts = zip(("kind", "x", "z", "heading", "speed"), entry, strict=True)
        movers.append(dict(facts, look=look, phase=rng.uniform(0, 6)))
    return movers


def mover_shapes(mover: dict, time: float) -> tuple[np.ndarray, list]:
    """Place where a mover stands, `[3]`, and its shapes in the world, at a time in frames; pace and line vary."""
    kind, look, swing = mover["kind"], mover["look"], np.sin(time * 0.09 + mover["phase"])
    angle = np.radians(mover["heading"])
    axes = np.array([[np.sin(angle), 0, np.cos(angle)], [np.cos(angle), 0, -np.sin(angle)], [0, 1, 0]])
    travelled, sway, scale = mover["speed"] * (time + 2.0 * swing), 0.0, 1.0
    if kind == "person":
        stride, scale = mover["phase"] + travelled * 4.2, look["tall"]
        shapes, sway = person(look, stride), 0.03 * np.sin(stride) + 0.05 * swing
    elif kind == "cyclist":
        shapes, sway = cyclist(look, travelled), 0.06 * swing
    else:
        shapes = vehicle(kind, look["paint"])
    foot = np.array([mover["x"], 0, mover["z"]]) + travelled * axes[0] + sway * axes[1]
    axes *= scale
    return foot, [(np.asarray(points, float) @ axes + foot, radius * scale, tone) for points, radius, tone in shapes]


def draw_shapes(canvas: Image.Image, camera: Camera, shapes: list, sun: tuple, light) -> None:
    """Draw shapes, and first the shadow they cast on the ground, onto an RGB canvas."""
    parts = []
    for points, radius, tone in shapes:
        shadow = points * (1, 0, 1) + points[:, 1:2] * (sun[0], 0, sun[1])
        parts.append((camera.project(points), camera.project(shadow), radius, tone))
    dots = np.concatenate([seen for part in parts for seen in part[:2]])
    margin = 0.2 * camera.focal / max(0.8, dots[:, 2].min()) + 2
    left, top = np.clip(dots[:, :2].min(0) - margin, 0, CANVAS).astype(int).tolist()
    right, bottom = np.clip(dots[:, :2].max(0) + margin, 0, CANVAS).astype(int).tolist()
    if dots[:, 2].min() < 0.8 or left == right or top == bottom:
        return
    fine = ((right - left) * FINER, (bottom - top) * FINER)
    shade, body = Image.new("L", fine), Image.new("RGBA", fine)
    on_shade, on_body = ImageDraw.Draw(shade), ImageDraw.Draw(body)

    def stroke(draw, seen, radius, fill, nudge=0.0):
        wide = radius * camera.focal / seen[:, 2].mean() * FINER
        dots = [((x - left) * FINER + nudge * wide, (y - top) * FINER - abs(nudge) * wide) for x, y, _ in seen]
        wide *= 1 - abs(nudge)
        draw.line(dots, fill, max(1, round(2 * wide)))
        for x, y in dots if len(dots) < 3 else ():
            draw.ellipse([x - wide, y - wide, x + wide, y + wide], fill)

    for seen, shadow, radius, tone in sorted(parts, key=lambda part: -part[0][:, 2].mean() if part[2] else 0):
        if radius:
            stroke(on_shade, shadow, radius, 105)
            stroke(on_body, seen, radius, colour(tone, np.multiply(light, 0.82)))
            if radius > 0.03:  # the side towards the sun is lighter
                stroke(on_body, seen, radius, colour(tone, np.multiply(light, 1.08)), -0.4 if sun[0] > 0 else 0.4)
            continue
        on_shade.polygon([tuple(dot) for dot in ((shadow[:, :2] - (left, top)) * FINER).tolist()], 120)
        x, y = ((seen[:, :2] - (left, top)) * FINER).T
        if np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) > 0:  # it faces the camera
            on_body.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), colour(tone, light))
    canvas.paste("#262230", (left, top), shade.reduce(FINER).filter(ImageFilter.GaussianBlur(1.5)))
    body = body.reduce(FINER)
    canvas.paste(body, (left, top), body)


def draw_sequence(folder: Path, name: str, frames: int = 60) -> None:
    """Draw one sequence in MOT17's layout: `folder/img1/000001.jpg` and so on, and `folder/seqinfo.ini`.

    Args:
        folder: the sequence's own folder; made if it is not there.
        name: one of SEQUENCES.
        frames: how many frames, from the first.

    Raises:
        ValueError: if the name is not one of SEQUENCES.
    """
    if name not in SCENES:
        raise ValueError(f"No drawn sequence is called {name!r}: choose one of {', '.join(SCENES)}.")
    scene, folder = SCENES[name], Path(folder)
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    palette, sun, rng = PALETTES[scene["palette"]], scene["sun"], np.random.default_rng(scene["seed"] + 2000)
    still, standing = build_street(scene, camera_at(scene, 30))
    movers, backdrop = build_movers(scene), None
    for index in range(frames):
        camera = camera_at(scene, index)
        if backdrop is None or scene["camera"] == "moving":
            backdrop = Image.new("RGB", CANVAS, palette["sky"][1])
            for panel in still:
                panel.draw(backdrop, camera)
        canvas, depths = backdrop.copy(), []
        for thing in [*standing, *(mover_shapes(mover, index) for mover in movers)]:
            foot = thing.corners[3] if isinstance(thing, Panel) else thing[0]
            depths.append((camera.project(foot[None])[0, 2], thing))
        for _, thing in sorted(depths, key=lambda entry: -entry[0]):  # the far ones first
            if isinstance(thing, Panel):
                thing.draw(canvas, camera)
            else:
                dark = thing[0][0] * sun[0] < -3 * abs(sun[0])  # in the shade of the houses
                draw_shapes(canvas, camera, thing[1], sun, palette["shade" if dark else "sunny"])
        pixels = np.asarray(canvas.reduce(2), np.float32)
        pixels = pixels + 1.5 * rng.standard_normal(pixels.shape, np.float32)  # the sensor's noise
        frame = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        frame.save(folder / "img1" / f"{index + 1:06d}.jpg", quality=95, subsampling=0)
    seqinfo.write_seqinfo(folder, rate=RATE, frames=frames, size=SIZE, camera=scene["camera"])
