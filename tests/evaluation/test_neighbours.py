"""Task neighbours: photos without labels have an evaluation, too."""

import evaluations
import numpy as np
import pytest
from PIL import Image

from moco_tf.probes import quality


def test_alignment_and_uniformity_are_those_of_the_papers_code():
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    rng = np.random.default_rng(0)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 30, 5)))
    a, b = torch.tensor(x), torch.tensor(y)
    assert quality.alignment(x, y) == pytest.approx((a - b).norm(dim=1).pow(2).mean().item())
    want = torch.pdist(a, p=2).pow(2).mul(-2).exp().mean().log().item()
    assert quality.uniformity(x) == pytest.approx(want)
    assert quality.uniformity(np.tile(x[:1], (4, 1))) == pytest.approx(0)


def test_photos_without_labels_get_a_page_with_copies_beside_their_queries(pretrained, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):  # six images, each twice; two that cannot be decoded
        if i % 2 == 0:
            pixels = rng.integers(0, 256, (3, 3, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    for name in ("02a.png", "99.png"):
        (tmp_path / name).write_bytes(b"no image")
    options = {"data__source": f"folder:{tmp_path}", "pairs": 8, "rows": 4, "queries": 5}
    record = evaluations.evaluate("neighbours", pretrained, tmp_path / "out", shown=2, **options)
    assert record["data"] == {"test": f"folder:{tmp_path}", "test_images": 12}
    metrics = record["metrics"]
    assert 0 <= metrics["alignment"]["value"] <= 4 and metrics["uniformity"]["value"] < 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png" in page and "most similar of 12 images" in page


def test_a_files_images_must_be_named(pretrained, tmp_path):
    encoder = tmp_path / "x.keras"
    encoder.write_bytes((pretrained / "encoder.keras").read_bytes())
    with pytest.raises(ValueError, match=r"`--config.data.source` must be given"):
        evaluations.evaluate("neighbours", encoder, tmp_path / "out")
