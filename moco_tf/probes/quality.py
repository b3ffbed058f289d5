"""Quality of an encoder by images without labels: alignment, uniformity, effective rank.

Source: arXiv:2005.10242, section 4, for alignment and uniformity; the effective rank is that of
Roy and Vetterli (2007), the exponential of the entropy of a covariance's spectrum.
"""

import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.precision import without_tf32
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.data.sources import Source, Stream
from moco_tf.data.two_views import two_view_dataset
from moco_tf.log import log
from moco_tf.probes.features import unit

IMAGES = 512  # so that a measurement takes as long as a few steps
ROWS = 64
BLIND = 0.9  # views of an image this much nearer than other images' are hardly nearer at all
NEAR_DUPLICATE = 0.98  # least cosine of copies, as docs/own_photos.md measures it
FALLEN = 0.5  # share of the first rank below which directions have been lost


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance of positive pairs: unit rows x and y, NxD, with alpha = 2."""
    return float(np.mean(np.sum((x - y) ** 2, axis=1)))


def uniformity(x: np.ndarray) -> float:
    """Logarithm of the mean Gaussian potential, t = 2, of all pairs of unit rows x, NxD."""
    squared = 2 - 2 * x.astype(np.float64) @ x.T
    upper = np.triu_indices(len(x), k=1)
    return float(np.log(np.mean(np.exp(-2 * squared[upper]))))


def effective_rank(x: np.ndarray) -> float:
    """Number of directions that rows x, NxC, vary in: 1 for a line, at most C and N - 1."""
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False).astype(np.float64)
    return rank_of_spectrum(singular**2)


def rank_of_spectrum(variance: np.ndarray) -> float:
    """Effective rank of a covariance with these eigenvalues: the exponential of their entropy."""
    share = variance.clip(1e-12) / variance.clip(1e-12).sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def near_duplicates(x: np.ndarray) -> float:
    """Share of unit rows x, NxC with N >= 2, whose nearest other row is a near-duplicate.

    Example:
        >>> near_duplicates(np.float32([[1, 0], [1, 0], [0, 1], [-1, 0]]))
        0.5
    """
    cosine = x @ x.T
    np.fill_diagonal(cosine, -1)
    return float(np.mean(cosine.max(axis=1) >= NEAR_DUPLICATE))


class Quality:
    """Measures an encoder by two views of some images, the same views each time.

    Args:
        encoder: `Encoder`.
        source: images with random access.
        recipe: `Recipe` of the views.
        image_size_px: side of the views.
        seed: seed of the views.
        strategy: strategy of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: Source,
        recipe: Recipe,
        *,
        image_size_px: int,
        seed: int,
        strategy: tf.distribute.Strategy,
    ):
        count = min(IMAGES, source.num_examples)
        rows = min(ROWS, count)
        self.batches = count // rows
        some = source.subset(np.arange(count) * source.num_examples // count)
        self.views = two_view_dataset(
            some,
            recipe,
            BatchLayout(rows),
            image_size_px=image_size_px,
            seed=seed,
            shuffle=False,
            jit_compile=False,
        )
        self.take_first = distribute.make_take_first(strategy, encoder.non_trainable_variables)
        network = encoder.features_and_embeddings()

        @tf.function(autograph=False)
        def run(images):
            return [tf.cast(x, tf.float32) for x in network(images, training=False)]

        self.run = run

    def __call__(self) -> dict[str, float]:
        """Dict of `alignment`, `uniformity` (both of the projection) and `effective_rank`.

        The rank is that of the backbone's features of one view. `other_alignment` is the mean
        squared distance of views of different images, which alignment is to be far below.
        """
        self.take_first()
        features, views = [], ([], [])
        with without_tf32():
            for batch in self.views.take(self.batches):
                for view, name in zip(views, ("x_q", "x_k"), strict=True):
                    feature, embedding = self.run(batch[name])
                    view.append(embedding.numpy())
                    if name == "x_q":
                        features.append(feature.numpy())
        x, y = (unit(np.concatenate(view)) for view in views)
        scores = {
            "alignment": alignment(x, y),
            "other_alignment": alignment(x, np.roll(y, 1, axis=0)),
            "uniformity": (uniformity(x) + uniformity(y)) / 2,
            "effective_rank": effective_rank(np.concatenate(features)),
        }
        log.info(
            "Without labels: alignment %.2f (other images %.2f), uniformity %.2f, effective rank "
            "%.1f",
            *scores.values(),
        )
        return scores


def make_scores(config, model, recipe: Recipe, source: Source | Stream, strategy):
    """The `Quality` of a run without a kNN monitor; None where it cannot be measured.

    Args:
        config: `pretraining.config.Config`.
        model: mechanism of the run.
        recipe: `Recipe` of its query views.
        source: images of the run.
        strategy: strategy of the model.
    """
    can_run = distribute.num_workers(strategy) == 1 and not distribute.on_tpu(strategy)
    is_measurable = isinstance(model.encoder_q, Encoder) and not isinstance(source, Stream)
    if not config.monitor.every or not can_run or not is_measurable or source.num_examples < 2:
        return None
    return Quality(
        model.encoder_q,
        source,
        recipe,
        image_size_px=config.data.image_size_px,
        seed=config.seed,
        strategy=strategy,
    )


def verdicts(first: dict[str, float], last: dict[str, float]) -> list[str]:
    """What scores of `Quality` say, a sentence or two each.

    Args:
        first: scores before the first step.
        last: scores at the end.

    Example:
        >>> scores = {"alignment": 0.4, "other_alignment": 1.8, "uniformity": -3.0}
        >>> scores["effective_rank"] = 40.0
        >>> verdicts(scores, scores)[0]
        'Alignment 0.40: views of one image are nearer than those of different images, at 1.80.'
    """
    own, others = last["alignment"], last["other_alignment"]
    is_blind = own > BLIND * others
    has_fallen = last["effective_rank"] < FALLEN * first["effective_rank"]
    return [
        f"Alignment {own:.2f}: views of one image are "
        + ("hardly " if is_blind else "")
        + f"nearer than those of different images, at {others:.2f}."
        + (" The encoder cannot tell images apart yet." if is_blind else ""),
        f"Uniformity {last['uniformity']:.2f}, {first['uniformity']:.2f} at the start: 0 is "
        "collapse, all embeddings equal; about -4 is the least, evenly spread over the sphere.",
        f"Effective rank {last['effective_rank']:.1f} of the features, "
        f"{first['effective_rank']:.1f} at the start."
        + (
            " Directions were lost, which may become a collapse: a lower learning rate or a "
            "momentum nearer to 1 usually helps."
            if has_fallen
            else " It falls if training goes wrong."
        ),
    ]
