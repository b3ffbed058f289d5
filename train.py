r"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--config.field=value ...]

The same command resumes a run that was stopped. It writes to the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

from moco_tf.commands import train

if __name__ == "__main__":
    train.run()
