"""Stops a run that went wrong."""

import math

import keras

from moco_tf.log import log


class Guard(keras.callbacks.Callback):
    """Stops a run that went wrong.

    Args:
        checkpoints: `Checkpoints`, to name the last good one.
        batch: images in a step, over all replicas.
        max_bad_fraction: undecodable images tolerated.
        remedy: what would help if the loss is not finite.
        input_remedy: what would help if the run waits for input.
        max_skipped: steps without a finite loss and gradient that may pass.
    """

    def __init__(self, checkpoints, batch, max_bad_fraction, remedy, input_remedy, max_skipped=0):
        super().__init__()
        self.remedy, self.input_remedy = remedy, input_remedy
        self.checkpoints, self.batch, self.max_bad = checkpoints, batch, max_bad_fraction
        self.max_skipped, self.skipped = max_skipped, 0
        self.bad, self.seen, self.named = 0, 0, set()
        self.said_waiting = False

    def on_train_batch_end(self, step, logs):
        self.seen += self.batch
        if not math.isfinite(logs["loss"]):
            self._skip(step, logs)
        if "round_end" in logs:
            self._count_bad(step, logs)
            self._watch_input(step, logs)

    def _skip(self, step, logs):
        self.skipped += 1
        if self.skipped > self.max_skipped:
            raise FloatingPointError(
                "Loss and gradients must be finite"
                + (f", but for max_skipped_steps={self.max_skipped}" if self.max_skipped else "")
                + f". Received: loss {logs['loss']} at step {step}. Such a step changes nothing. "
                f"The last checkpoint, a good one, is {self.checkpoints.latest}. {self.remedy}"
            )
        log.warning("Step %d is skipped: its loss or a gradient is not finite.", step)
        for name in [name for name, value in logs.items() if value != value]:
            del logs[name]
        logs["skipped_steps"] = self.skipped

    def _count_bad(self, step, logs):
        names = logs.pop("bad_names")
        self.bad += logs.pop("bad")
        logs["bad_images"] = self.bad
        for name in sorted(set(names) - self.named):
            self.named.add(name)
            log.warning("Replaced an image that cannot be decoded: %s", name or "(no name)")
        # The share means something only over a thousand images.
        if self.bad > self.max_bad * max(self.seen, 1000):
            raise ValueError(
                f"At most data.max_bad_fraction={self.max_bad} of the images may be undecodable. "
                f"Received: {self.bad} of {self.seen} up to step {step}, such as "
                f"{', '.join(sorted(self.named)[:3]) or 'those named by other workers'}. Mend the "
                "data or raise the limit."
            )

    def _watch_input(self, step, logs):
        if logs.get("input_wait", 0) > 0.1 and step > 50 and not self.said_waiting:
            self.said_waiting = True
            log.warning(
                "Waiting for input %.0f %% of the time: the input pipeline is the bottleneck. %s",
                100 * logs["input_wait"],
                self.input_remedy,
            )
