"""How the page of an evaluation looks, and what its terms mean."""

__all__ = ["STYLE", "TERMS"]

STYLE = """
:root { --ink: #1f2430; --faint: #6b7280; --soft: #e4e7ec; --wash: #fdf3f0; }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.9rem; margin: 0 0 .2rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: 1.2rem; border-top: 1px solid var(--soft); }
h3 { font-size: 1.02rem; margin: 2rem 0 .5rem; }
p, ul, dd { max-width: 48rem; }
ul { padding-left: 1.2rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .6rem; }
.lead, .note { color: var(--faint); }
.note { font-size: .86rem; margin: .5rem 0; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr));
  gap: .8rem; margin: 1.6rem 0;
}
.card { border: 1px solid var(--soft); border-radius: .6rem; padding: .9rem 1rem; }
.card b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .82rem; color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td {
  padding: .38rem .9rem .38rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--soft);
}
thead th {
  font-weight: 600; vertical-align: bottom; max-width: 11rem;
  border-bottom: 1px solid var(--faint);
}
tbody th { font-weight: 400; white-space: nowrap; }
tr.control th, tr.control td { color: var(--faint); }
td.strong, th.strong { background: var(--wash); padding-left: .5rem; }
tr.model td.strong { font-weight: 650; }
td small { display: block; color: var(--faint); white-space: nowrap; font-weight: 400; }
img { max-width: 100%; height: auto; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem; }
.figures img { width: 25rem; }
pre {
  background: #f7f8fa; padding: .9rem 1rem; border-radius: .5rem;
  overflow-x: auto; font-size: .82rem;
}
@media print { h2 { break-after: avoid; } table, img { break-inside: avoid; } }
"""

TERMS = {
    "Effectiveness": "Does the counterfactual show what was asked for? Accuracy of categories, mean absolute "
    "error (MAE) of numbers, read from the image by a predictor that guidance never saw, or measured on it.",
    "Interventional consistency": "Averaged over factuals, counterfactuals under do(v) have the law of "
    "samples under do(v): in pixel variance within a class, in features, and in attributes that are read.",
    "Composition": "Doing nothing should change nothing: noise is abducted, and the value generated again.",
    "Reversibility": "There and back should end where it began; the way back abducts the noise anew.",
    "Minimality": "log(0.8 exp P(S_cf \u2264 d) + 0.2 exp P(S_F \u2265 d)), in pixels: d is the distance of "
    "the counterfactual to its factual, S_cf and S_F are those of real images of the wanted and of its own "
    "class. Doing nothing scores 0.295. Lower is better.",
    "Controls": "Doing nothing returns the factual image. A random real image of the wanted class is as "
    "effective as images are, and nobody's counterfactual. The nearest real one is the best that looking it "
    "up can do.",
    "Intervals": "95 %: Wilson's for shares, a percentile bootstrap over rows for means. They are about "
    "these rows, for this one fitted model and seed.",
}
