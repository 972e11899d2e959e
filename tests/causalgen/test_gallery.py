"""The gallery: models that ship with the package, their samples, and the demo that draws them."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from typer.testing import CliRunner

import causalgen as cg
from causalgen.cli import main as cli
from causalgen.saving.pretrained import gallery_folder, gallery_names


@pytest.fixture(scope="module")
def mnist():
    return cg.SCM.from_pretrained("mnist")


@pytest.fixture(scope="module")
def rows():
    """Twenty sample rows, each with another digit."""
    table = cg.sample_rows("mnist")
    evidence = {node: table[node][:20] for node in table}
    return evidence, (evidence["digit"] + np.arange(20) % 9 + 1) % 10


def recognised(scm, images):
    """What the model's own anticausal predictor reads."""
    mechanism = scm.mechanisms["image"]
    features = mechanism.predictor.encode(images * 2 - 1, 0.02)
    return mechanism.predictor.most_likely(features, {"digit": torch.zeros(len(images), dtype=int)}, "digit")


@pytest.mark.parametrize("name", gallery_names())
def test_a_model_is_small_and_says_what_it_is(name):
    folder = gallery_folder(name)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 16e6
    card = (folder / "README.md").read_text()
    for heading in ("## Data", "## Licence", "## Recipe", "## Figures"):
        assert heading in card
    assert cg.SCM.from_pretrained(name).to_yaml() == (folder / "scm.yaml").read_text()


def test_a_model_without_rows_of_its_own_says_so():
    with pytest.raises(cg.DataError, match="The model imagenet has no rows of its own"):
        cg.sample_rows("imagenet")


def test_samples_are_real_rows_of_every_digit():
    table = cg.sample_rows("mnist")
    assert len(table["digit"]) == 200
    assert set(table["digit"]) == set(range(10))
    assert table["image"].dtype == np.uint8


def test_digits_become_other_digits(mnist, rows):
    evidence, other = rows
    cf = mnist.counterfactual(evidence, do={"digit": other}, seed=0)
    assert (recognised(mnist, cf.factual["image"]).numpy() == evidence["digit"]).mean() >= 0.9
    assert (recognised(mnist, cf["image"]).numpy() == other).mean() >= 0.9


def test_the_null_of_the_image_mechanism_is_exact_to_rounding(mnist, rows):
    evidence, _ = rows
    cf = mnist.counterfactual(evidence, do={}, seed=0, copy_unaffected=False)
    assert (cf["image"] - cf.factual["image"]).abs().max() <= 1e-4


@pytest.mark.parametrize("guidance", ["classifier_free", "anticausal"])
def test_guidance_vanishes_at_the_factual_digit(mnist, rows, guidance):
    evidence, _ = rows
    scm = mnist.with_options("image", guidance={"kind": guidance}, solver={"steps": 4})
    cf = scm.counterfactual(evidence, do={"digit": evidence["digit"]}, seed=0, copy_unaffected=False)
    assert (cf["image"] - cf.factual["image"]).abs().max() <= 1e-4


def test_the_denoiser_does_without_the_digit(mnist):
    """Samples of the unconditional denoiser look like the digits asked for to the predictor."""
    free = mnist.with_options(
        "image",
        solver={"kind": "anchored", "steps": 8},
        guidance={"kind": "anticausal", "form": "raw", "denoiser": "unconditional", "scale": 1.0},
    )
    digits = np.tile(np.arange(10), 10)
    images = free.sample(100, do={"digit": digits}, seed=0)["image"]
    assert 0.05 < images.mean() < 0.25
    # Raw guidance at s = 1 reaches three in five, guessing would one in ten.
    assert (recognised(mnist, images).numpy() == digits).mean() >= 0.5


def test_the_demo_draws_every_digit_as_every_other(tmp_path):
    out = tmp_path / "demo.png"
    drawn = CliRunner().invoke(cli.app, ["demo", "--out", str(out)])
    assert drawn.exit_code == 0, drawn.output
    assert drawn.output.strip().splitlines()[-1] == str(out)
    with PILImage.open(out) as picture:
        assert picture.width > 1000
        # Eleven rows of digits: ink in each eleventh of the height.
        ink = np.asarray(picture.convert("L").crop((160, 0, picture.width, picture.height)))
        assert all((band < 30).mean() > 0.3 for band in np.array_split(ink, 11))


@pytest.mark.slow
def test_the_demo_draws_the_published_algorithm(tmp_path):
    out = tmp_path / "demo.png"
    drawn = CliRunner().invoke(cli.app, ["demo", "--preset", "diff-scm", "--out", str(out)])
    assert drawn.exit_code == 0, drawn.output
    assert out.exists()
