"""Source csv:FILE: images that a table lists with their labels; a classifier of a few of them."""

import collections

import pytest
from PIL import Image

from moco_tf.data.sources import open_source
from moco_tf.evaluation import labelled
from moco_tf.evaluation.config import Data


@pytest.fixture
def table(tmp_path):
    """Ten images of each of three labels, in a sub-folder; a header, a comma in a name."""
    lines = ["File,Label,note"]
    for i in range(30):
        name = f"photos/{i:02}.png" if i else "photos/a, b.png"
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (8 * i, 0, 0)).save(path)
        quoted = f'"{name}"'
        lines.append(f"{quoted}, {('rose', 'ash', 'elm')[i % 3]},x")
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "", ""]), encoding="utf-8-sig")
    return tmp_path / "labels.csv"


def test_a_table_gives_images_and_labels(table):
    source = open_source(f"csv:{table}")
    assert (source.num_examples, source.classes) == (30, ("ash", "elm", "rose"))
    assert [source.classes[i] for i in source.labels[:3]] == ["rose", "ash", "elm"]
    assert int(source.image(5)[0, 0, 0]) == 40
    assert source.name(0).numpy().decode() == "photos/a, b.png"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "which lists none"),
        ("photos/01.png,rose\nphotos/02.png\n", r"'photos/02.png' in line 2 of .*x.csv"),
        ("photos/01.png,rose\nno.png,ash\n", r"must exist.*no.png \(1 of 2\)"),
    ],
)
def test_a_table_that_cannot_be_used_is_explained(text, message, table):
    path = table.parent / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        open_source(f"csv:{path}")
    with pytest.raises(ValueError, match="does not exist"):
        open_source("csv:/nowhere/x.csv")


def test_a_fifth_of_each_class_is_tested_where_only_training_images_are_named(table):
    pair = labelled.open_pair(Data(train=f"csv:{table}"), None)
    counts = [collections.Counter(source.labels) for source in (pair.train, pair.test)]
    assert counts == [{0: 8, 1: 8, 2: 8}, {0: 2, 1: 2, 2: 2}]
    assert not set(pair.train.files) & set(pair.test.files)
    assert pair.classes == ("ash", "elm", "rose")
    again = labelled.open_pair(Data(train=f"csv:{table}", subset_seed=1), None)
    assert again.test.files != pair.test.files
    with pytest.raises(ValueError, match=r"data.test` must be given, .*random access"):
        labelled.open_pair(Data(train=f"folder:{table.parent}/photos"), None)


def test_a_table_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes("kä.png,cat\n".encode("latin-1"))
    with pytest.raises(ValueError, match="must be in UTF-8.*Save it as"):
        open_source(f"csv:{tmp_path}/labels.csv")
