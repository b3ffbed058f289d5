r"""Evaluates an encoder.

    python evaluate.py --task=knn|linear|linear_cached|finetune --checkpoint=WORKDIR-OR-FILE \
        --workdir=... [--config=configs/eval/....py] [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=detection|segmentation --config=configs/transfer/....py \
        --checkpoint=... --workdir=... [likewise]
    python evaluate.py --task=compare --workdir=... DIR DIR ...

Without --config it takes configs/eval/TASK.py, and without sources in it, the images of the
run. The same command resumes training that was stopped; features are kept as soon as all images of
a split went through the encoder. It writes results.json and report.html to the
workdir, those that train a classifier classifier.keras, segmentation segmenter.keras, detection
detector.keras and predictions.json.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts to speak

from moco_tf.commands import evaluate

if __name__ == "__main__":
    evaluate.run()
