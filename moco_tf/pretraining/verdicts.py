"""What each curve of a run should look like, in a sentence, and whether it does."""

import dataclasses

import numpy as np

from moco_tf.pretraining.config import Config
from moco_tf.pretraining.mechanism import chance_loss, chance_top1
from moco_tf.probes.quality import FALLEN

LAST = 0.05  # share of a curve whose mean is its end
AT_CHANCE = 0.99  # share of the chance loss above which a loss is at chance
COLLAPSED = 0.02  # share of the dimensions, beyond one, below which the keys' rank is a collapse
TOP1_TIMES_CHANCE = 5  # below that the encoder hardly tells images apart


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict on one curve.

    Attributes:
        text: what the curve should look like, and how this one ended.
        is_good: whether it looks like that.
    """

    text: str
    is_good: bool = True


def judge(name: str, x: np.ndarray, y: np.ndarray, config: Config) -> Verdict | None:
    """Judges the curve of a run that is over.

    Args:
        name: name of the value in metrics.jsonl, such as "loss".
        x: steps.
        y: values.
        config: `Config` of the run.

    Returns:
        None for a curve without points, or one that nothing is expected of.

    Example:
        >>> judge("queue_fill", np.array([1, 2]), np.array([0.5, 1.0]), Config()).is_good
        True
    """
    if not len(x) or name not in JUDGES:
        return None
    return JUDGES[name](y, float(np.mean(y[-max(1, round(LAST * len(y))) :])), config)


def _loss(y, end, config):
    chance = chance_loss(config)
    text = (
        f"It may rise while the queue fills, and should end far below chance, {chance:.2f}. "
        f"It ended at {end:.2f}."
    )
    return Verdict(text, end < AT_CHANCE * chance)


def _top1(y, end, config):
    text = (
        "How often a query finds its own key. It may fall while the queue fills, and should then "
        f"rise. It ended at {end:.1%}, the mean of the last steps."
    )
    return Verdict(text, end > TOP1_TIMES_CHANCE * chance_top1(config))


def _knn(y, end, config):
    text = f"It should rise above the untrained encoder's, {y[0]:.1%}. It ended at {y[-1]:.1%}."
    return Verdict(text, len(y) < 2 or y[-1] > y[0])


def _queue_fill(y, end, config):
    return Verdict(f"It should reach 1, and ended at {y[-1]:.2f}.", y[-1] == 1)


def _key_rank(y, end, config):
    dim = config.model.dim
    least = 1 + COLLAPSED * (dim - 1)
    is_good = y[-1] >= least
    text = (
        f"The number of directions that the keys fill, of {dim}. Near 1 all images have the same "
        f"key, which is a collapse. It ended at {y[-1]:.1f}"
    )
    way_out = f", below {least:.1f}: train longer, or with a lower learning rate."
    return Verdict(text + ("." if is_good else way_out), is_good)


def _rank(y, end, config):
    text = f"The number of directions that the features fill. It ended at {y[-1]:.1f}."
    return Verdict(text, y[-1] >= FALLEN * y[0])


def _alignment(y, end, config):
    text = "Mean squared distance of two views of an image; far below that of different images."
    return Verdict(f"{text} It ended at {y[-1]:.2f}.")


def _other_alignment(y, end, config):
    text = "Mean squared distance of views of different images; 2 if they have nothing in common."
    return Verdict(f"{text} It ended at {y[-1]:.2f}.")


def _uniformity(y, end, config):
    return Verdict(f"Lower is better: images are spread more evenly. It ended at {y[-1]:.2f}.")


def _learning_rate(y, end, config):
    return Verdict("The schedule, as the config sets it.")


JUDGES = {
    "loss": _loss,
    "top1": _top1,
    "knn": _knn,
    "queue_fill": _queue_fill,
    "key_effective_rank": _key_rank,
    "alignment": _alignment,
    "other_alignment": _other_alignment,
    "uniformity": _uniformity,
    "effective_rank": _rank,
    "learning_rate": _learning_rate,
}
