"""Drawing of objects into images: boxes, masks, keypoints and surfaces."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from pycocotools import mask as coco_mask

from moco_tf.detection.data import densepose
from moco_tf.reports import plots

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00b7b7", "#f032e6", "#9a6324")


def draw(
    axis: Axes,
    image: np.ndarray,
    classes: tuple[str, ...],
    boxes: np.ndarray,
    label: np.ndarray,
    rles: list | None = None,
    keypoints: np.ndarray | None = None,
    surface: list | None = None,
    score: np.ndarray | None = None,
    dashed: np.ndarray | None = None,
    polygons: list | None = None,
    markers: list[str] | None = None,
) -> None:
    """Draws objects into an image.

    The color of a box shows its class, that of a mask its instance, that of the surface its part.

    Args:
        axis: Matplotlib axes.
        image: uint8 HxWx3.
        classes: K names.
        boxes: float nx4, px.
        label: int n, classes.
        rles: n masks, RLE, or None for an object without one; or None.
        keypoints: float nxJx3; or None.
        surface: list of float Px3 or wider: x, y, part; or None.
        score: float n, for detections; or None.
        dashed: bool n, boxes to draw with dashed lines; or None.
        polygons: n lists of float arrays x, y, x, y, ... px; or None.
        markers: Matplotlib's marker of each keypoint; None draws circles.
    """
    axis.imshow(image)
    axis.set_axis_off()
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        color = COLORS[label[i] % len(COLORS)]
        shade = COLORS[i % len(COLORS)]
        line = "--" if dashed is not None and dashed[i] else "-"
        box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=color, ls=line)
        axis.add_patch(box)
        text = plots.plain(classes[label[i]]) + ("" if score is None else f" {score[i]:.2f}")
        tag = {"pad": 1, "facecolor": color, "edgecolor": "none"}
        axis.text(x1, y1, text, fontsize=6, color="white", bbox=tag, clip_on=True)
        if rles is not None and rles[i] is not None and coco_mask.area(rles[i]):
            mask = coco_mask.decode(rles[i])
            axis.contourf(mask, levels=[0.5, 1], colors=[shade], alpha=0.4)
        for points in polygons[i] if polygons is not None else ():
            corners = np.reshape(points, (-1, 2)) - 0.5
            axis.add_patch(Polygon(corners, facecolor=shade, alpha=0.4, edgecolor="none"))
        if keypoints is not None:
            _draw_keypoints(axis, keypoints[i], color, markers or ["o"] * len(keypoints[i]))
    for points in surface or ():
        x, y, part = points[:, :3].T
        axis.scatter(x - 0.5, y - 0.5, 3, part, cmap="nipy_spectral", vmin=0, vmax=densepose.PARTS)
    axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))


def _draw_keypoints(axis, points, color, markers):
    """Draws the labeled keypoints of an object, float Jx3."""
    is_labeled = points[:, 2] > 0
    for marker in dict.fromkeys(markers):
        x, y, _ = points[is_labeled & (np.array(markers) == marker)].T
        axis.scatter(x - 0.5, y - 0.5, s=12, marker=marker, color=color, edgecolors="white", lw=0.5)
