"""Numbers of the configs against the references' files, which each test names by path and field."""

import runpy

import pytest
import tiny

from moco_tf import presets

DETECTORS = sorted(path.stem for path in (tiny.ROOT / "configs" / "transfer").glob("*rcnn*.py"))


def header(name):
    """The docstring of a config."""
    return runpy.run_path(str(tiny.ROOT / "configs" / f"{name}.py"))["__doc__"]


def test_knn_votes_as_mmselfsup_does():
    """open-mmlab/mmselfsup, tools/benchmarks/classification/knn_imagenet/test_knn.py: --temperature
    0.07, --num-knn 10 20 100 200; its numbers are those of the header.
    """
    config = presets.load("eval/knn")
    assert config.temperature == 0.07
    assert sorted(config.neighbours) == [10, 20, 100, 200]
    assert "mmselfsup" in header("eval/knn")


@pytest.mark.parametrize("name", (*DETECTORS, "voc_c4", "voc_dc5"))
def test_supervised_controls_train_bn_but_for_lvis(name):
    """facebookresearch/moco, detection/configs/Base-RCNN-C4-BN.yaml, the base of the supervised
    pascal_voc_R_50_C4_24k.yaml and coco_R_50_C4_2x.yaml: MODEL.RESNETS.NORM naiveSyncBN,
    MODEL.ROI_HEADS.NAME Res5ROIHeadsExtraNorm, MODEL.BACKBONE.FREEZE_AT 0.
    """
    assert not presets.load(f"transfer/{name}").frozen_bn
    assert "of supervised weights" in header(f"transfer/{name}")
    assert ("frozen_bn=true" in header(f"transfer/{name}")) == name.startswith("lvis")


def test_densepose_warms_up_and_pools_as_its_recipe():
    """facebookresearch/detectron2, projects/DensePose/configs/Base-DensePose-RCNN-FPN.yaml:
    SOLVER.WARMUP_FACTOR 0.1, POOLER_TYPE "ROIAlign" of ROI_BOX_HEAD and ROI_DENSEPOSE_HEAD. All
    others have detectron2/config/defaults.py: 1.0 / 1000 and "ROIAlignV2".
    """
    numbers = {
        name: (config.optimizer.warmup_factor, config.roi_aligned)
        for name in (*DETECTORS, "voc_c4", "voc_dc5", "coco_retinanet_1x")
        for config in [presets.load(f"transfer/{name}")]
    }
    assert numbers.pop("coco_densepose_rcnn_fpn_s1x") == (0.1, False)
    assert set(numbers.values()) == {(0.001, True)}
