"""Random graphs, variables, options and SCM files."""

from hypothesis import strategies as st

from graphs.scm_file import NodeSpec, SCMSpec
from graphs.variables import Categorical, Continuous, Image, Integer, Variable

__all__ = ["dags", "node_names", "options", "specs", "texts", "variables"]

# "null", "no" and "e1" look like other types in YAML, "--" and "a-" are odd but allowed after a letter.
node_names = st.sampled_from(["null", "no", "y", "e1", "true", "_", "a-"]) | st.from_regex(
    r"[A-Za-z_][A-Za-z0-9_-]{0,12}", fullmatch=True
)
# Names, units and labels hold no character that would act instead of being read.
texts = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc", "Zl", "Zp"],
        exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff",
    ),
    max_size=30,
)
# Options may; lone surrogates cannot be in a UTF-8 file.
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@st.composite
def dags(draw: st.DrawFn, max_nodes: int = 8) -> dict[str, list[str]]:
    """Parents by node, declared in any order; edges go from earlier to later names of a random order."""
    names = draw(st.lists(node_names, min_size=1, max_size=max_nodes, unique_by=str.lower))
    parents = {}
    for index, name in enumerate(names):
        parents[name] = draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
    return {name: parents[name] for name in draw(st.permutations(names))}


sizes = st.integers(1, 64)
bounds = st.floats(-1e9, 1e9)
labels = st.lists(texts | st.integers(-(2**40), 2**40), min_size=1, max_size=5, unique=True)
categoricals = st.tuples(st.integers(1, 1000) | labels, st.booleans()).map(lambda args: Categorical(*args))
images = st.tuples(st.integers(1, 4), sizes, sizes).map(lambda args: Image(*args))


@st.composite
def continuous(draw: st.DrawFn) -> Continuous:
    """A continuous variable with any mix of bounds."""
    lower = draw(st.none() | bounds)
    upper = draw(st.none() | bounds.filter(lambda bound: lower is None or lower < bound))
    return Continuous(lower, upper, draw(texts), draw(st.lists(sizes, max_size=2)))


@st.composite
def integers(draw: st.DrawFn) -> Integer:
    """An integer variable with any mix of bounds."""
    lower = draw(st.none() | st.integers(-(2**53) + 1, 2**53 - 2))
    upper = draw(st.none() | st.integers(-(2**53) + 1 if lower is None else lower + 1, 2**53 - 1))
    return Integer(lower, upper, draw(texts))


variables: st.SearchStrategy[Variable] = categoricals | continuous() | images | integers()
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | strings
options = st.dictionaries(
    texts,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


@st.composite
def specs(draw: st.DrawFn) -> SCMSpec:
    """Any SCM file of a few nodes."""
    nodes = {
        name: NodeSpec(variable=draw(variables), parents=tuple(parents), mechanism=draw(st.none() | options))
        for name, parents in draw(dags(max_nodes=4)).items()
    }
    return SCMSpec(causalgen=1, name=draw(st.none() | texts), nodes=nodes)
