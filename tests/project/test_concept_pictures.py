"""The pictures of README and docs/concepts.md are those that their script draws."""

import concept_pictures
import tiny

PICTURES = tiny.ROOT / "docs" / "pictures"


def words(path):
    """The texts in an SVG file."""
    lines = path.read_text().splitlines()
    return [line.split(">")[1].split("<")[0] for line in lines if "<text" in line]


def test_the_script_draws_the_pictures(tmp_path):
    concept_pictures.main(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in PICTURES.iterdir())
    vector = [name for name in drawn if name.endswith(".svg")]
    assert len(vector) == 3
    for name in vector:  # lines and fonts differ between versions of Matplotlib
        assert words(tmp_path / name) == words(PICTURES / name) != []
