"""A metric: the contrast of an image, its standard deviation over pixels."""

from causalgen.evaluation.metric import Entry, Metric
from causalgen.metrics import mean_score

__all__ = ["Contrast"]


class Contrast(Metric):
    """Contrast of counterfactual images beside their controls, and of the factual images."""

    kind = "contrast"

    def measure(self, case):
        """Of each intervention's images; a node that is no image has none."""
        for answer in case.answers:
            for subject, images in case.subjects(answer).items():
                yield Entry("contrast", case.node, subject, _score(images), do=answer.question.node)
        if case.pool is not None:
            yield Entry("contrast", case.node, "floor", _score(case.factual))


def _score(images):
    return mean_score(images.std(axis=(1, 2, 3)), "standard deviation", better="neither")
