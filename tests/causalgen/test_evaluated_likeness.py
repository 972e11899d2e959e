"""Likeness and diversity in ``cg.evaluate``: a model that keeps half of its noise and redraws the other."""

import numpy as np
import pytest
from PIL import Image as PILImage

import causalgen as cg
from causalgen.evaluation.metric import CONTROLS, MECHANISM, MODEL
from causalgen.evaluation.questions import draw_rows
from tests.causalgen.metrics import shades
from tests.causalgen.test_evaluate import score


def left(images):
    """A pixel that is kept."""
    return np.asarray(images, dtype=float)[:, 0, 2, 1] - shades.shade_of(images) / 4


def right(images):
    """A pixel that is redrawn."""
    return np.asarray(images, dtype=float)[:, 0, 2, 4] - shades.shade_of(images) / 4


MEASURES = {"shade": shades.shade_of, "left": left, "right": right}


def evaluated(**options):
    data = shades.rows(160, seed=3)
    scm = shades.shades(**options).fit(data, progress=False)
    metrics = ("likeness", "diversity", "consistency")
    return cg.evaluate(scm, data, measures=MEASURES, metrics=metrics, progress=False)


@pytest.fixture(scope="module")
def drawn():
    return evaluated(redraws=True)


@pytest.fixture(scope="module")
def point():
    return evaluated()


@pytest.mark.parametrize("do", ["kind", "shade"])
def test_half_of_the_variance_is_drawn(drawn, do):
    found = score(drawn, "diversity", subject=MECHANISM, do=do)
    assert found.value == pytest.approx(0.5, abs=0.05) and found.low < 0.5 < found.high and found.rows == 32
    for subject, share in (("do nothing", 0), ("nearest real", 0), ("model sample", 1)):
        control = score(drawn, "diversity", subject=subject, do=do)
        assert control.value == pytest.approx(share, abs=0.08 * share)
    assert score(drawn, "diversity", subject="random real", do=do).value == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("do", ["kind", "shade"])
def test_what_is_kept_correlates_and_what_is_redrawn_does_not(drawn, do):
    assert score(drawn, "likeness", subject=MECHANISM, do=do, of="left").value > 0.95
    redrawn = score(drawn, "likeness", subject=MECHANISM, do=do, of="right")
    assert abs(redrawn.value) < 2 / 160**0.5 and redrawn.low < 0 < redrawn.high
    for of in ("left", "right"):
        assert score(drawn, "likeness", subject="do nothing", do=do, of=of).value == pytest.approx(1)
        assert abs(score(drawn, "likeness", subject="model sample", do=do, of=of).value) < 0.25


def test_what_was_asked_to_change_need_not_survive(drawn):
    assert not drawn.find("likeness", do="shade", of="shade")
    # The mechanism is asked for another kind with the shade as it was; the whole model changes the shade.
    assert score(drawn, "likeness", subject=MECHANISM, do="kind", of="shade").value > 0.95
    assert not drawn.find("likeness", subject=MODEL, do="kind", of="shade")


@pytest.mark.parametrize("do", ["kind", "shade"])
def test_the_controls_of_pixels_are_all_and_chance(drawn, point, do):
    assert score(drawn, "likeness", subject="do nothing", do=do, of="pixels").value == 1
    chance = score(drawn, "likeness", subject="model sample", do=do, of="pixels")
    half = score(drawn, "likeness", subject=MECHANISM, do=do, of="pixels")
    whole = score(point, "likeness", subject=MECHANISM, do=do, of="pixels")
    assert abs(chance.value - 0.5) < 0.2 and chance.high < half.low and half.value <= whole.value


def test_a_sample_of_the_model_is_a_control_of_consistency(drawn):
    found = score(drawn, "consistency", subject="model sample", do="kind", of="pixel variance")
    assert found.value == pytest.approx(1, abs=0.2) and found.value != 1
    assert CONTROLS[-1] == "model sample" and "a sample of the model" in str(drawn)


def test_a_point_has_no_diversity_and_says_so(drawn, point, tmp_path):
    for do in ("kind", "shade"):
        (entry,) = point.find("diversity", do=do)
        assert (entry.subject, entry.score.value, entry.score.high) == (MECHANISM, 0, 0)
    told = "gives a point: draws of one row are equal"
    assert told in point.save(tmp_path / "point").read_text(encoding="utf-8")
    assert told not in drawn.save(tmp_path / "drawn").read_text(encoding="utf-8")
    assert not any("draws" in name for name in point.pictures)
    with PILImage.open(tmp_path / "drawn" / "pictures" / "image-do-kind-draws.png") as picture:
        assert min(picture.size) > 600  # six rows of a factual and four draws


def test_other_rows_are_asked_what_the_row_is():
    data = shades.rows(70, seed=1)
    scm = shades.shades(redraws=True).fit(data, progress=False)
    asked = {"kind": 1 - data["kind"], "shade": np.linspace(-1, 1, 70)}
    passes = []
    (draws,) = draw_rows(
        scm, "image", data, [asked], numbers=np.arange(70), seed=0, workers=1, advance=passes.append
    )
    kept = data["image"] - 0.25 * data["shade"][:, None, None, None].astype(np.float32)
    half = (kept + 0.25 * asked["shade"][:, None, None, None].astype(np.float32))[..., : shades.SIDE // 2]
    assert draws.own.shape == draws.others.shape == (4, 70, 1, shades.SIDE, shades.SIDE)
    assert draws.own[..., : shades.SIDE // 2] == pytest.approx(np.stack([half] * 4), abs=1e-5)
    # In five parts of 14 rows the last row of each is followed by its first.
    order = np.concatenate([np.roll(part, -1) for part in np.split(np.arange(70), 5)])
    other = kept[order] + 0.25 * asked["shade"][:, None, None, None].astype(np.float32)
    assert draws.others[..., : shades.SIDE // 2] == pytest.approx(
        np.stack([other[..., : shades.SIDE // 2]] * 4), abs=1e-5
    )
    for images in (draws.own, draws.others, draws.samples):
        assert len({part.tobytes() for part in images}) == len(images)
    assert len(draws.samples) == 8 and sum(passes) == 70 * 20
