"""Augmentation recipes by their addresses: "moco:v2", or "my_module:name" for one of your own."""

from moco_tf import addresses
from moco_tf.data import recipes
from moco_tf.data.recipes.recipe import Recipe


def find(address: str, field: str = "--config.data.recipe") -> Recipe:
    """Returns the recipe of an address.

    Args:
        address: "MODULE:NAME" of a module in moco_tf/data/recipes, or of any other module that
            Python can import.
        field: name of the option as it is typed, for the error.

    Raises:
        ValueError: if there is no such recipe.

    Example:
        >>> find("moco:v2").num_draws
        35
    """
    return addresses.resolve(recipes, address, field, instance_of=Recipe)


def find_both(recipe: str, recipe_k: str | None = None) -> tuple[Recipe, Recipe]:
    """Returns the recipes of the query view and the key view by `data.recipe` and `data.recipe_k`.

    Args:
        recipe: address of the recipe of the query view.
        recipe_k: address of the recipe of the key view; None for the same recipe.

    Raises:
        ValueError: if there is no such recipe.
    """
    query = find(recipe)
    return query, find(recipe_k, "--config.data.recipe_k") if recipe_k else query
