"""Draws the losses of finished detections beside each other, and their AP50 on test images.

python tools/loss_curves.py OUTPUT.png NAME=WORKDIR [NAME=WORKDIR ...]
"""

import argparse
import json
import pathlib

import numpy as np
from matplotlib.figure import Figure

SMOOTHED = 20  # steps, of which the mean is drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    args = parser.parse_args()
    figure = Figure(figsize=(4 * len(args.runs), 3), layout="constrained")
    for axis, run in zip(figure.subplots(1, len(args.runs), squeeze=False)[0], args.runs):
        name, _, workdir = run.partition("=")
        lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
        results = json.loads((pathlib.Path(workdir) / "results.json").read_text())
        draw(axis, name, [json.loads(line) for line in lines], results["metrics"])
    figure.savefig(args.output, dpi=80)


def draw(axis, name, lines, metrics):
    """The smoothed losses of a run; its scores, meanwhile and at the end, on their own axis."""
    trained = [line for line in lines if "loss" in line]
    losses = np.array([line["loss"] for line in trained])
    count = len(losses) // SMOOTHED
    smooth = losses[: count * SMOOTHED].reshape(count, SMOOTHED).mean(axis=1)
    steps = [line["step"] for line in trained][SMOOTHED - 1 :: SMOOTHED]
    axis.plot(steps, smooth, color="0.4", label="loss")
    axis.set(title=name, xlabel="step", ylim=(0, None))
    scores = axis.twinx()
    for score in (key for key in metrics if key.endswith("_ap50")):
        points = [(x["step"], x[f"test_{score}"]) for x in lines if f"test_{score}" in x]
        points.append((lines[-1]["step"], metrics[score]["value"]))
        scores.plot(*zip(*points), marker=".", label=score.replace("_ap50", " AP50"))
    scores.set(ylim=(0, 1.05))
    handles = [h for a in (axis, scores) for h in a.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, loc="center right", fontsize=8)


if __name__ == "__main__":
    main()
