"""kNN task: accuracy on backbone features and on the projection, for all k in one pass."""

import numpy as np

from moco_tf.evaluation import results
from moco_tf.evaluation.classification import Classification, Outcome
from moco_tf.evaluation.config import Knn
from moco_tf.log import log
from moco_tf.probes import knn


def main_k(neighbours: tuple[int, ...], images_per_class: int) -> int:
    """The k of the main result: the first of at most the images a class, else the smallest.

    With a larger k the other classes' images have most of the votes, however good the features.

    Example:
        >>> main_k((200, 100, 20, 10), images_per_class=37)
        20
    """
    return next((k for k in neighbours if k <= images_per_class), min(neighbours))


class KnnTask(Classification):
    """kNN accuracy on backbone features; the main result is for the k of `main_k`."""

    name = "knn"
    Config = Knn
    needs_float32 = True

    def classify(self):
        train, test = self.encoder_outputs()
        numbers = np.flatnonzero(test.ok)
        labels = test.labels[numbers]
        per_class = max(int(train.ok.sum()) // self.splits.num_classes, 1)
        self.k = main_k(self.config.neighbours, per_class)
        if self.k != self.config.neighbours[0]:
            log.warning(
                "The main result is for k = %d, not for %d: there are %d training images a class.",
                self.k,
                self.config.neighbours[0],
                per_class,
            )
        by_features = {}
        scores, by_features["backbone"] = self._nearest(train, test, 0, "backbone")
        _, by_features["projection"] = self._nearest(train, test, 1, "projection")
        k = min(self.k, int(train.ok.sum()))
        return Outcome(
            scores=scores,
            labels=labels,
            features=test.x[0].at(numbers),
            numbers=numbers,
            protocol=f"k = {k}, t = {self.config.temperature:g}, backbone features of center crops",
            details={"knn": by_features},
            curves=[("kNN top-1", "k", sorted(self.config.neighbours), _by_k(by_features))],
        )

    def _nearest(self, train, test, output, title):
        """Scores for the main k, and the accuracy for each k by its name.

        Args:
            train: `features.Outputs` of the training images.
            test: `features.Outputs` of the test images.
            output: number of the network's output: 0 features, 1 projection.
            title: title of the progress bar.
        """
        config = self.config
        bank = train.x[output].at(np.flatnonzero(train.ok))
        queries = test.x[output][test.ok]
        cosine, index = knn.nearest(bank, queries, max(config.neighbours), title=title)
        neighbour_labels = train.labels[train.ok][index]
        main, accuracies = None, {}
        for k in config.neighbours:
            scores = knn.votes(
                cosine[:, :k],
                neighbour_labels[:, :k],
                self.splits.num_classes,
                config.temperature,
            )
            scores /= scores.sum(axis=1, keepdims=True)
            main = scores if k == self.k else main
            measured = results.measure(scores, test.labels[test.ok])
            accuracies[str(k)] = measured["top1"]["value"]
        line = ", ".join(f"k={k} {value:.1%}" for k, value in accuracies.items())
        log.info("kNN on the %s: %s", title, line)
        return main, accuracies


def _by_k(by_features):
    """Accuracies in ascending order of k, by the name of the features."""
    return {
        name: [accuracies[k] for k in sorted(accuracies, key=int)]
        for name, accuracies in by_features.items()
    }
