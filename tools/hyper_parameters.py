"""The hyper-parameters of configs/ and of constants in the code, for docs/protocols.md."""

import ast
import dataclasses
import importlib
import inspect
import pathlib
from typing import Any

from moco_tf import presets, schema
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.data import recipes
from moco_tf.data.recipes.standard import training_crop
from moco_tf.detection.config import R_CNN, Detection
from moco_tf.detection.model.settings import RCNN_SETTINGS
from moco_tf.evaluation.config import Supervised
from moco_tf.pretraining import mechanism
from moco_tf.pretraining.ablation import BASES, Ablation
from moco_tf.pretraining.config import Config

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Arguments of a config file's get_config; "" is no argument.
ARGUMENTS = {
    "moco_v2": ("", "800ep"),
    "eval/linear_v3": ("", "vit"),
    "moco_v3/resnet50": ("", "300ep", "1000ep"),
    "moco_v3/vit": ("", "base"),
    "transfer/coco_mask_rcnn_c4": ("", "2x"),
    "transfer/coco_mask_rcnn_fpn": ("", "2x"),
    "transfer/coco_overfit": ("", "keypoints"),
}
ABLATION_ARGUMENTS = ("", "cifar10")

# The config whose values the base of an ablation has, but for a few, by its data.
PRESET_OF = {presets.load(name).data.source: name for name in BASES.values()}

# Fields that are no hyper-parameters. A new field belongs here or in docs/protocols/*.toml.
LEFT_OUT = {
    "Where the data are, and what is white in them": """data.white data.source data.data_dir
        data.num_examples data.train data.test
        data.num_train data.num_test data.num_classes data.names data.features_dir data.ignored
        densepose_files data.keypoint_pairs data.keypoint_sigmas""",
    "How often something is logged, measured or saved": """log_every_steps checkpoint_every_steps
        keep_checkpoints test_every_steps test_every_epochs monitor.every_epochs
        monitor.every_steps monitor.source profile_steps""",
    "How it is computed, not what": """data.augment_on data.jit_compile data.shard_files
        data.shuffle_buffer data.check_images data.pad_px data.square_px jit_compile steps_per_call
        gradient_accumulation deterministic rows test_batch_size detector.ANCHORS detector.REGIONS
        roi_align.CHUNK densepose_head.MAPS retinanet.STAGES""",
    "Controls, subsets and early ends": """random_init backbone seed stop_after_steps monitor.linear
        data.fraction data.subset_seed""",
    "How much of the images a page shows and measures": "data.gallery queries shown pairs",
    "What happens to unusable images and steps": """data.max_bad_fraction data.max_pixels
        max_skipped_steps data.keep_empty""",
}
LEFT_OUT = {title: names.split() for title, names in LEFT_OUT.items()}


def read_configs() -> dict[str, Any]:
    """All configs of configs/ by name, with their arguments: "moco_v2:800ep"."""
    configs = {}
    for name in presets.names():
        default = ABLATION_ARGUMENTS if name.startswith("ablations/") else ("",)
        for argument in ARGUMENTS.get(name, default):
            full_name = f"{name}:{argument}" if argument else name
            configs[full_name] = presets.load(full_name)
    return configs


def plain(value: Any) -> Any:
    """A value as TOML has it: lists for tuples, floats of few digits, "none" for None."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, float):
        return round(value, 6 if abs(value) > 1e-4 else 9)
    return "none" if value is None else value


def values_of(config: Any) -> dict[str, Any]:
    """Hyper-parameters of a config that have an effect, plain, by their dotted names.

    Learning rates are those of the whole batch. Recipes are replaced by their ops, and settings
    that are none by the architecture's.
    """
    if isinstance(config, Ablation):
        return _values_of_ablation(config)
    values = {field.name: field.value for field in schema.fields(config)}
    for name in {name for names in LEFT_OUT.values() for name in names} | _unused(config):
        values.pop(name, None)
    if isinstance(config, Config):
        del values["data.recipe"], values["data.recipe_k"]
        values |= _values_of_recipe("recipe", config.data.recipe)
        if config.data.recipe_k:
            values |= _values_of_recipe("recipe_k", config.data.recipe_k)
    if isinstance(config, Supervised):
        crop = training_crop(recipes.find("moco:v2")).crop
        values["training_crop"] = _description(crop)
    if isinstance(config, Detection):
        settings = RCNN_SETTINGS[config.architecture]
        for name, value in values.items():
            if value is None and hasattr(settings, name):
                values[name] = getattr(settings, name)
    if "optimizer.learning_rate" in values:
        optimizer = config.optimizer
        del values["optimizer.reference_batch"]
        values["optimizer.learning_rate"] *= config.batch_size / optimizer.reference_batch
    return {name: plain(value) for name, value in values.items()}


def _unused(config):
    """Names of the fields that have no effect beside the others."""
    names = set()
    in_steps = getattr(config, "steps", None) is not None
    unit, other = ("steps", "epochs") if in_steps else ("epochs", "steps")
    names |= {other, f"optimizer.milestones_{other}", f"optimizer.warmup_{other}"}
    if hasattr(config, "optimizer"):
        if not getattr(config.optimizer, f"warmup_{unit}"):
            names.add("optimizer.warmup_factor")
        if config.optimizer.schedule == "cosine_after_warmup":
            names.add("optimizer.first_epoch")
        if config.optimizer.name == "adamw":
            names.add("optimizer.momentum")
        if not isinstance(config, Config):  # SGD by their rules
            names.add("optimizer.name")
        if config.optimizer.schedule == "step":
            names.add("optimizer.first_epoch")
            at = f"milestones_{unit}"
            is_given = getattr(config.optimizer, at)
            names.add("optimizer.milestones" if is_given else f"optimizer.{at}")
        else:
            names |= {f"optimizer.milestones_{unit}", "optimizer.milestones", "optimizer.factor"}
    if isinstance(config, Config):
        if config.model.head == "linear":
            names.add("model.hidden")
        taken = mechanism.find(config.model.mechanism).arguments()
        fields = ("queue_size", "momentum", "symmetric", "shuffle")
        names |= {f"model.{name}" for name in fields if name not in taken}
        options = ("mechanism_options", "backbone_options")
        names |= {f"model.{name}" for name in options if not getattr(config.model, name)}
        if config.monitor.source == "off":
            names |= {f"monitor.{field.name}" for field in dataclasses.fields(config.monitor)}
    if isinstance(config, Detection) and config.architecture == "retinanet":
        names |= set(R_CNN)
    return names


def _values_of_ablation(ablation):
    """What the base does not have from its config in `BASES`, and all values of varied fields."""
    preset = values_of(presets.load(PRESET_OF[ablation.base.data.source]))
    values = values_of(ablation.base)
    values = {name: value for name, value in values.items() if preset.get(name) != value}
    for run in ablation.runs.values():
        for name in run:
            given = (r[name] for r in ablation.runs.values() if name in r)
            values[name] = plain(list(dict.fromkeys(given)))
    return values


def _values_of_recipe(prefix, address):
    recipe = recipes.find(address)
    ops = (recipe.crop, *recipe.photometric_ops)
    values = {f"{prefix}.{type(op).__name__}": _description(op) for op in ops}
    order = ", ".join(type(op).__name__ for op in ops)
    return values | {
        f"{prefix}.order": order,
        f"{prefix}.mean": recipe.mean,
        f"{prefix}.std": recipe.std,
    }


def _description(op):
    """The fields of a recipe's op, such as "sigma [0.1, 2.0], p 0.5"."""
    fields = dataclasses.asdict(op)
    return ", ".join(f"{name} {plain(value)}" for name, value in fields.items())


def constants() -> dict[str, dict[str, Any]]:
    """Numbers that are constants of modules, by part of the package and by module and name."""
    parts = {
        "code/detection": sorted(ROOT.glob("moco_tf/detection/model/*.py")),
        "code/segmentation": [ROOT / "moco_tf" / "segmentation" / "networks.py"],
    }
    left_out = {name for names in LEFT_OUT.values() for name in names}
    result = {}
    for part, paths in parts.items():
        values = {}
        for path in paths:
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for name in _assigned(path):
                value = plain(getattr(module, name))
                if _is_numeric(value) and f"{path.stem}.{name}" not in left_out:
                    values[f"{path.stem}.{name}"] = value
        result[part] = values
    parameters = inspect.signature(BatchNorm).parameters
    result["code/backbone"] = {
        f"BatchNorm.{name}": parameters[name].default for name in ("momentum", "epsilon")
    }
    return result


def _assigned(path):
    """Names of the constants that a module assigns."""
    for node in ast.parse(path.read_text()).body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            for name in ast.walk(target):
                if isinstance(name, ast.Name) and name.id.isupper():
                    yield name.id


def _is_numeric(value):
    if isinstance(value, dict):
        value = list(value.values())
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, (int, float)) for item in items)
