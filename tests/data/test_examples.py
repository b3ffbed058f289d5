"""The examples in docstrings run and give what they show."""

import doctest
import importlib

import pytest

MODULES = (
    "moco_tf.addresses",
    "moco_tf.data.batch_layout",
    "moco_tf.data.recipes",
    "moco_tf.data.recipes.recipe",
    "moco_tf.data.sources",
    "moco_tf.data.sources.source",
    "moco_tf.data.two_views",
    "moco_tf.probes.knn",
    "moco_tf.reports.pages",
)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted and not results.failed
