r"""Evaluates an encoder: kNN, linear classification, fine-tuning, detection, segmentation.

    python evaluate.py --task=knn|linear|linear_cached|finetune --checkpoint=WORKDIR-OR-FILE \
        --workdir=... [--config=configs/eval/....py] [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=detection|segmentation --config=configs/transfer/....py \
        --checkpoint=... --workdir=... [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=compare --workdir=... DIR DIR ...

The default --config is configs/eval/TASK.py. Without sources in the config, the images are those of
the pre-training run. The same command resumes training that was stopped. Features are saved once
all images of a split went through the encoder.

All tasks write results.json and report.html to the workdir. Tasks that train a classifier add
classifier.keras, segmentation adds segmenter.keras, detection detector.keras and predictions.json.
"""

from moco_tf.commands import evaluate

if __name__ == "__main__":
    evaluate.run()
