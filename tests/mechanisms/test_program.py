import math
import sys
import textwrap

import networkx as nx
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import causalgen as cg
from causalgen.testing import check_mechanism
from graphs.errors import (
    CannotAbductError,
    DomainError,
    EvidenceError,
    MechanismError,
    ShapeError,
    SpecError,
    UnknownNameError,
)
from graphs.variables import Categorical, Continuous, Image
from mechanisms.base import Noise
from mechanisms.program.mechanism import Program
from mechanisms.program.run import standard_form
from mechanisms.registry import dump_mechanism
from tests.mechanisms.fit import codes, generator, normal

N = 40
PARENTS = {"a": Continuous(), "k": Categorical(3)}
ROWS = {"a": normal(N, seed=1), "k": codes(3, N, 2)}


def sample(name, law):
    return pyro.sample(name, law)


def last_site(parents):
    return sample("x", dist.Normal(2 * parents["a"] + parents["k"], 0.5))


def additive(parents):
    return parents["a"] - 3 * sample("u", dist.LogNormal(0.0, 0.5))


def pair(parents):
    mean = torch.stack([parents["a"], -parents["a"]], -1)
    return sample("x", dist.MultivariateNormal(mean.float(), torch.tensor([[1.0, 0.5], [0.5, 2.0]])))


def hidden_cause(parents):
    z = sample("z", dist.Normal(parents["a"], 1.0))
    return sample("x", dist.Normal(z, 0.5))


def random_gain(parents):
    gain = sample("gain", dist.Gamma(2.0, 2.0))
    return gain * parents["a"] + sample("u", dist.Laplace(0.0, 1.0))


def category(parents):
    u = sample("u", dist.Uniform(0.0, 1.0))
    v = sample("v", dist.Normal(parents["a"], 1.0))
    return (u > 0.4).long() + (v > 0).long()


def coins(parents):
    return parents["k"] + 2 * sample("heads", dist.Bernoulli(0.3)) + sample("more", dist.Bernoulli(0.5))


def picture(parents):
    brightness = sample("brightness", dist.Beta(2.0, 2.0))[:, None, None, None]
    return brightness * torch.ones(1, 2, 2) * 0.5


EXACT = {"last site": (last_site, ()), "additive": (additive, ()), "pair": (pair, (2,))}
POSTERIOR = {
    "hidden cause": (hidden_cause, Continuous()),
    "random gain": (random_gain, Continuous()),
    "category": (category, Categorical(3)),
    "coins": (coins, Continuous()),
}


def bound(program, variable=None, parents=PARENTS, particles=60):
    return Program(program=program, particles=particles).bind(variable or Continuous(), parents)


def generated(mechanism, seed=5):
    return mechanism.generate(ROWS, mechanism.sample_noise(N, generator=generator(seed)))


@pytest.mark.parametrize(("program", "shape"), EXACT.values(), ids=EXACT.keys())
def test_laws_where_one_site_is_determined(program, shape):
    mechanism = bound(program, Continuous(shape=shape))
    assert (mechanism.abduction, mechanism.deterministic) == ("exact", True)
    check_mechanism(mechanism, generated(mechanism), ROWS)


@pytest.mark.parametrize(("program", "variable"), POSTERIOR.values(), ids=POSTERIOR.keys())
def test_laws_where_noise_is_inferred(program, variable):
    # An estimate of the density follows what is generated only with enough particles.
    particles = {hidden_cause: 200, random_gain: 100, category: 300, coins: 200}[program]
    mechanism = bound(program, variable, particles=particles)
    assert (mechanism.abduction, mechanism.deterministic) == ("posterior", False)
    check_mechanism(mechanism, generated(mechanism), ROWS)


def test_laws_where_noise_stays_unknown():
    def wave(parents):
        return torch.sin(sample("u", dist.Normal(0.0, 1.0))) + parents["a"]

    mechanism = bound(wave)
    assert mechanism.abduction == "none" and mechanism.log_prob(generated(mechanism), ROWS) is None
    check_mechanism(mechanism, generated(mechanism), ROWS)
    with pytest.raises(
        CannotAbductError, match="'u', so drawn sites hardly ever.*sample additive noise last"
    ):
        mechanism.abduct(ROWS["a"], ROWS, generator=generator())


def test_numbers_that_share_a_number_of_the_last_site_are_told_why_they_are_refused():
    def crossed(parents):
        e = sample("e", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return parents["a"][:, None] + e.cumsum(-1)  # affine in e, by a triangular matrix

    mechanism = bound(crossed, Continuous(shape=(2,)))
    with pytest.raises(CannotAbductError, match="each must follow its own number of that site"):
        mechanism.abduct(generated(mechanism), ROWS, generator=generator())


def test_an_image():
    mechanism = bound(picture, Image(1, 2, 2))
    value = generated(mechanism)
    assert value.dtype == torch.float32 and -1 <= value.min() and value.max() <= 0
    assert mechanism.abduction == "none"


def test_an_image_that_is_the_last_site_is_solved_for_in_the_pixels_it_is_drawn_in():
    def shaded(parents):
        mean = (0.3 + 0.1 * parents["a"].sigmoid()).reshape(-1, 1, 1, 1)
        return sample("x", dist.Normal(mean.expand(-1, 1, 2, 2), 0.05).to_event(3))

    mechanism, value = bound(shaded, Image(1, 2, 2)), torch.full((N, 1, 2, 2), -0.2)  # 0.4 of [0, 1]
    check_mechanism(mechanism, value, ROWS)
    noise = mechanism.abduct(value, ROWS, generator=generator()).noise
    mean = 0.3 + 0.1 * ROWS["a"].sigmoid()
    assert_close(noise["x"][:, 0, 0, 0], (0.4 - mean) / 0.05, rtol=1e-4, atol=1e-5)
    assert_close(
        mechanism.log_prob(value, ROWS),  # of pixels from -1 to 1, which are twice as wide
        4 * (torch.distributions.Normal(mean, 0.05).log_prob(torch.tensor(0.4).double()) - math.log(2)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_exact_density_and_residual():
    mechanism = bound(last_site)
    x = normal(N, seed=3)
    mean = 2 * ROWS["a"] + ROWS["k"]
    assert_close(mechanism.log_prob(x, ROWS), torch.distributions.Normal(mean, 0.5).log_prob(x))
    noise = mechanism.abduct(x, ROWS, generator=generator()).noise
    assert_close(noise["x"], (x - mean) / 0.5)  # standardised: its law does not depend on the parents


def test_posterior_and_density_in_closed_form():
    """z ~ N(a, 1), x ~ N(z, .5): given x the noise of z is N((x - a) / 1.25, .2), and x ~ N(a, sqrt 1.25)."""
    mechanism = bound(hidden_cause, particles=2000)
    a, x = torch.zeros(3).double(), torch.tensor([-1.0, 0.0, 2.0]).double()
    rows = {"a": a, "k": torch.zeros(3).long()}
    expected = torch.distributions.Normal(a, 1.25**0.5).log_prob(x)
    assert_close(mechanism.log_prob(x, rows), expected, rtol=0, atol=0.1)
    many = {name: value.repeat(1000) for name, value in rows.items()}
    mechanism = bound(hidden_cause, particles=300)
    abducted = mechanism.abduct(x.repeat(1000), many, generator=generator())
    z = abducted.noise["z"].reshape(1000, 3)
    assert_close(z.mean(0), x / 1.25, rtol=0, atol=0.08)
    assert_close(z.std(0), torch.full((3,), 0.2**0.5).double(), rtol=0, atol=0.06)
    effective = abducted.diagnostics["effective_sample_size"]
    assert abducted.log_weight is not None and effective.shape == (3000,)
    assert bool((effective >= 100).all())


def test_weights_keep_averages_consistent_with_few_particles():
    """Two particles are far too few for the resampled draw alone; its weights make up for it."""
    mechanism = bound(hidden_cause, particles=2)
    x = torch.full((100000,), 2.0).double()
    rows = {"a": torch.zeros(100000).double(), "k": torch.zeros(100000).long()}
    abducted = mechanism.abduct(x, rows, generator=generator())
    weights = abducted.log_weight.softmax(0)
    assert abs(abducted.noise["z"].mean() - 1.6) > 0.3
    assert abs((weights * abducted.noise["z"]).sum() - 1.6) < 0.05


def test_counterfactuals_of_a_model():
    scm = cg.SCM(
        nx.DiGraph([("a", "x")]),
        variables={"a": cg.Continuous(), "x": cg.Continuous()},
        mechanisms={
            "a": cg.mechanisms.Program(program=lambda _: sample("a", dist.Normal(0.0, 1.0))),
            "x": cg.mechanisms.Program(program=random_gain),
        },
    )
    answer = scm.counterfactual({"a": 1.0, "x": 2.0}, do={"a": 0.0}, num_samples=200, seed=0)
    # x = gain * a + u: at a = 0 it is u = 2 - gain, a posterior draw.
    gain = 2 - answer["x"]
    assert bool((gain > 0).all()) and gain.std() > 0.1
    again = scm.counterfactual({"a": 1.0, "x": 2.0}, do={"a": 0.0}, num_samples=200, seed=0)
    assert torch.equal(again["x"], answer["x"])
    same = scm.counterfactual({"a": 1.0, "x": 2.0}, do={"a": 1.0}, copy_unaffected=False, seed=0)
    assert_close(same["x"], torch.tensor([2.0]).double())
    assert set(answer.provenance["x"]) == {"posterior"}


@pytest.mark.parametrize(
    ("law", "free"),
    [
        (dist.Normal(torch.tensor([1.0]), 2.0), True),
        (dist.Gumbel(torch.tensor([1.0]), 2.0), True),
        (dist.Logistic(torch.tensor([1.0]), torch.tensor([2.0])), True),
        (dist.Uniform(torch.tensor([-1.0]), 2.0), True),
        (dist.Exponential(torch.tensor([3.0])), True),
        (dist.HalfNormal(torch.tensor([3.0])), True),
        (dist.LogNormal(torch.tensor([1.0]), 0.5), True),
        (dist.Normal(torch.zeros(1, 2), 2.0).to_event(1), True),
        (dist.Gamma(torch.tensor([3.0]), 2.0), False),
        (dist.StudentT(torch.tensor([5.0]), 1.0, 2.0), False),
        (dist.Beta(torch.tensor([3.0]), 2.0), False),
    ],
)
def test_standard_forms_draw_the_same_law(law, free):
    form = standard_form(law.expand([4000]))
    assert form.free is free
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        noise, reference = form.draw(), law.expand([4000]).sample().double()
    value = form.forward(noise)
    assert noise.dtype == torch.float64
    assert_close(form.inverse(value), noise)
    levels = torch.tensor([0.1, 0.5, 0.9]).double()
    spread = reference.quantile(0.9) - reference.quantile(0.1)
    assert_close(value.quantile(levels), reference.quantile(levels), rtol=0, atol=0.1 * spread.item())


def test_a_resampled_last_site_is_refused():
    with pytest.raises(
        MechanismError, match=r"'x', of law Categorical.*drawn again in every world.*comparison"
    ):
        bound(lambda p: sample("x", dist.Categorical(logits=torch.zeros(3))), Categorical(3))


def test_noise_that_depends_on_the_parents_is_refused():
    mechanism = bound(lambda p: p["a"] + sample("u", dist.Bernoulli(torch.sigmoid(p["a"]))))
    with pytest.raises(
        MechanismError, match="'u' of the program has a law .Bernoulli. that depends on the node's parents"
    ):
        generated(mechanism)


def observed(parents):
    sample("u", dist.Normal(0.0, 1.0))
    return pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(()))


def parametrised(parents):
    return sample("x", dist.Normal(pyro.param("weight", torch.ones(())), 1.0))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda p: p["a"], "no sample site"),
        (observed, "'x' of the program is observed"),
        (parametrised, "parameter 'weight' in Pyro's global store"),
        (lambda p: sample("x", dist.Normal(torch.zeros(3, 1), 1.0)), r"batch shape \(3, 1\).*to_event"),
        (lambda p: sample("u", dist.Normal(0.0, 1.0)) + torch.randn(()), "outside of its sample sites"),
        (lambda p: p["b"], "fails on 8 rows of placeholder parents.*'b'"),
        (lambda p: p["a"] + sample("u", dist.Normal(0.0, 1.0).mask(False)), "'u' of the program is masked"),
        (
            lambda p: sample("u", dist.Normal(torch.zeros(1), 1.0).mask(False).to_event(1))[..., 0],
            "'u' of the program is masked",
        ),
    ],
)
def test_programs_that_are_no_mechanism(program, message):
    with pytest.raises(MechanismError, match=message):
        bound(program)


def test_a_program_that_returns_nothing_is_told_so():
    def silent(parents):
        sample("x", dist.Normal(parents["a"], 1.0))

    with pytest.raises(ShapeError, match="must return a tensor of shape.*got NoneType"):
        bound(silent)


def test_a_program_may_change_the_parents_that_it_gets():
    def doubled(parents):
        parents["a"] *= 2
        return parents["a"] + sample("u", dist.Normal(0.0, 1.0))

    mechanism, a, u = bound(doubled), ROWS["a"].clone(), normal(N, seed=9)
    assert_close(mechanism.generate(ROWS, Noise(N, {"u": u})), 2 * a + u)
    assert_close(mechanism.abduct(2 * a + u, ROWS, generator=generator()).noise["u"], u)
    assert torch.equal(ROWS["a"], a)


@pytest.mark.parametrize(
    ("value", "program"),
    [
        (Continuous(), lambda parents: sample("x", dist.Normal(parents["a"].mean(), 1.0))),
        (Continuous(), lambda parents: parents["a"].cumsum(0) + sample("u", dist.Normal(0.0, 1.0))),
        (Continuous(), lambda parents: (u := sample("u", dist.Normal(0.0, 1.0))) - u.mean()),
        (
            Categorical(2),
            lambda parents: (sample("u", dist.Uniform(0.0, 1.0)) < parents["k"].double().std()).long(),
        ),
        (Continuous(), lambda parents: 1e-9 * (parents["a"].mean() + sample("u", dist.Normal(0.0, 1.0)))),
        (Continuous(), lambda parents: 1.7e9 + parents["a"].mean() + sample("u", dist.Normal(0.0, 1.0))),
    ],
    ids=[
        "mean of a parent",
        "sum along rows",
        "mean of noise",
        "spread of a category",
        "small unit",
        "times",
    ],
)
def test_programs_that_mix_rows_are_refused(value, program):
    # Alone or beside others, x = mean(a) + u would be another number for the same a and u.
    with pytest.raises(MechanismError, match="mixes rows"):
        Program(program=program).bind(value, PARENTS)


def _positive(values):
    if bool((values <= 0).any()):
        raise ValueError("expected values above 0")
    return values


@pytest.mark.parametrize(
    "program",
    [
        lambda parents: _positive(parents["a"]).mean() + sample("u", dist.Normal(0.0, 1.0)),
        lambda parents: sample("x", dist.Normal(_positive(parents["a"]).median(), 1.0)),
        lambda parents: sample("u", dist.Normal(0.0, 1.0)).exp() * _positive(parents["a"]).max(),
    ],
    ids=["mean", "median", "extreme"],
)
def test_programs_that_fail_where_they_are_tried_are_watched_at_the_rows_that_are_asked(program):
    # Beside 1, 3 and 8 a row meets a mean of 4, a median of 3, a maximum of 8; alone, its own value.
    mechanism = Program(program=program).bind(Continuous(), PARENTS)
    rows = {"a": torch.tensor([1.0, 3.0, 8.0]).double(), "k": torch.zeros(3).long()}
    with pytest.raises(MechanismError, match="mixes rows"):
        mechanism.generate(rows, mechanism.sample_noise(3, generator=generator()))
    with pytest.raises(MechanismError, match="mixes rows|affine"):
        mechanism.abduct(rows["a"], rows, generator=generator())


def test_a_program_that_fails_where_it_is_tried_and_keeps_rows_apart_is_taken():
    def law(parents):
        return _positive(parents["a"]).log() + sample("u", dist.Normal(0.0, 1.0))

    mechanism = Program(program=law).bind(Continuous(), PARENTS)
    rows = {"a": torch.tensor([1.0, 3.0, 8.0]).double(), "k": torch.zeros(3).long()}
    found = mechanism.abduct(torch.ones(3).double(), rows, generator=generator())
    assert_close(found.noise["u"], 1 - torch.tensor([1.0, 3.0, 8.0]).double().log())


def test_values_outside_the_domain_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(8,\), one value a row; got \(8, 2\)"):
        bound(lambda p: sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1)))
    with pytest.raises(DomainError, match="expected within 0.0 and None"):
        generated(bound(last_site, Continuous(lower=0)))
    with pytest.raises(DomainError, match="expected a code, 0..1"):
        generated(bound(lambda p: 2 + (sample("u", dist.Normal(0.0, 1.0)) > 0).long(), Categorical(2)))


def test_evidence_that_no_noise_gives():
    positive = bound(lambda p: sample("x", dist.LogNormal(p["a"], 1.0)))
    with pytest.raises(EvidenceError, match=r"Row 1: the program gives -1.0 for no noise"):
        positive.abduct(
            torch.tensor([1.0, -1.0]).double(),
            {"a": torch.zeros(2), "k": torch.zeros(2)},
            generator=generator(),
        )
    dice = bound(coins)
    with pytest.raises(EvidenceError, match="Row 0: none of 131072 prior draws.*gives 0.5: it is impossible"):
        dice.abduct(
            torch.tensor([0.5]).double(), {"a": torch.zeros(1), "k": torch.tensor([0])}, generator=generator()
        )


def test_an_image_that_no_noise_gives_is_told_as_it_was_given():
    def bright(parents):
        return sample("x", dist.Uniform(torch.full((1, 1, 2), 0.6), torch.ones(1, 1, 2)).to_event(3))

    picture = Program(program=bright).bind(Image(1, 1, 2), {})
    grey = torch.zeros(1, 1, 1, 2)  # 0.5 of [0, 1]
    with pytest.raises(EvidenceError, match=r"the program gives \[\[\[0.5, 0.5\]\]\] for no noise"):
        picture.abduct(grey, {}, generator=generator())


def scaled(parents):
    return sample("x", dist.Normal(0.0, parents["a"]))


def rooted(parents):
    return sample("x", dist.Normal(0.0, parents["a"].sqrt()))


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("program", [scaled, rooted])
def test_parameters_that_a_law_cannot_have_are_told_with_the_parents(program, checks):
    root = cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}})
    variables = {"a": Continuous(), "x": Continuous()}
    scm = cg.SCM(nx.DiGraph([("a", "x")]), variables, {"a": root, "x": Program(program=program)})
    told = r"Node 'x': At a = -2, the scale of the program's Normal leaves torch's constraint GreaterThan"
    right = {"a": [1.0, 4.0, 4.0], "x": 0.5}
    for ask in (
        lambda: scm.sample(3, do={"a": -2.0}),
        lambda: scm.counterfactual(right, do={"a": [1.0, 4.0, -2.0]}),
        lambda: scm.counterfactual({"a": [1.0, -2.0, 4.0], "x": 0.5}, do={"a": 1.0}),
        lambda: scm.log_prob({"a": [1.0, 4.0, -2.0], "x": 0.5}),
    ):
        with pyro.validation_enabled(checks), pytest.raises(DomainError, match=told):
            ask()
    assert scm.log_prob(right).isfinite().all()


def test_handlers_outside_do_not_reach_in():
    mechanism = bound(last_site)
    with pyro.poutine.trace() as outer, pyro.poutine.condition(data={"x": torch.zeros(N)}):
        value = mechanism.generate(ROWS, Noise(N, {"x": normal(N)}))
    assert not outer.trace.nodes and bool((value != 0).any())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that registers one program."""
    info = tmp_path / "programs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: programs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[causalgen.programs]\nshifted = my_programs:shifted\n")
    code = """
        import pyro, pyro.distributions as dist

        def shifted(parents):
            return parents["a"] + pyro.sample("u", dist.Normal(0.0, 1.0))
    """
    (tmp_path / "my_programs.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_programs", raising=False)


def model(program):
    return cg.SCM(
        nx.DiGraph([("a", "x")]),
        variables={"a": cg.Continuous(), "x": cg.Continuous()},
        mechanisms={
            "a": cg.mechanisms.Equation(value="u", noise={"u": {"normal": [0, 1]}}),
            "x": cg.mechanisms.Program(program=program),
        },
    )


def test_a_registered_program_is_saved_by_its_name(installed, tmp_path):
    scm = model("shifted")
    folder = scm.save_pretrained(tmp_path / "model")
    assert "program: shifted" in (folder / "scm.yaml").read_text()
    loaded = cg.SCM.from_pretrained(folder)
    assert torch.equal(loaded.sample(5, seed=0)["x"], scm.sample(5, seed=0)["x"])
    import my_programs  # pyright: ignore[reportMissingImports] - written by the fixture

    # The function itself goes by its name too.
    assert dump_mechanism(Program(program=my_programs.shifted)) == {"kind": "program", "program": "shifted"}


def test_saving_a_function_without_a_name_is_refused(tmp_path):
    with pytest.raises(MechanismError, match=r"Node 'x': its program is a function.*'causalgen.programs'"):
        model(additive).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_unknown_names(installed, tmp_path):
    with pytest.raises(UnknownNameError, match="'shiftd'.*Did you mean 'shifted'"):
        model("shiftd")
    path = tmp_path / "scm.yaml"
    path.write_text(
        "causalgen: 1\nnodes:\n  x:\n    variable: {type: continuous}\n"
        "    mechanism: {kind: program, program: 'os:system'}\n"
    )
    with pytest.raises(SpecError, match=r"scm.yaml:5.*Unknown program 'os:system'"):
        cg.SCM.from_yaml(path)
