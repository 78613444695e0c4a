"""A network as a row of boxes: notebooks 03 and 07."""

from __future__ import annotations


def draw_chain(boxes: list[str], learned, under: dict[int, str], bridge: tuple[int, int, str]):
    """Figure of boxes from left to right, with an arrow from each to the next.

    Args:
        boxes: what stands in each.
        learned: numbers of the boxes that are blue.
        under: a line below some of them, by their numbers.
        bridge: numbers of two boxes that a dashed line joins, and what stands above it.

    Returns:
        A matplotlib figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 1.9), layout="constrained")
    for number, text in enumerate(boxes):
        style = {"boxstyle": "round,pad=0.5", "facecolor": "#e8eef7" if number in learned else "white"}
        axis.text(number, 0, text, ha="center", va="center", bbox=style)
        axis.text(number, -0.72, under.get(number, ""), ha="center", va="center", fontsize=9)
        if number:
            axis.annotate("", (number - 0.32, 0), (number - 0.68, 0), arrowprops={"arrowstyle": "->"})
    first, last, text = bridge
    axis.plot([first, first, last, last], [0.5, 0.95, 0.95, 0.5], "--", color="gray")
    axis.text((first + last) / 2, 1.0, text, ha="center", va="bottom", fontsize=9)
    axis.set(xlim=(-0.5, len(boxes) - 0.5), ylim=(-0.9, 1.35))
    axis.axis("off")
    return figure
