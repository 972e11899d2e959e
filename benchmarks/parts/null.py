"""The null: an image regenerated from its own noise under its own digit, ``generate(pa, abduct(x, pa))``.

Nothing is copied, values are taken before they are clamped, and decoding batches differ from encoding
batches. With step residuals the null is exact by construction; without, it says how good the solver is.
"""

from __future__ import annotations

from . import settings
from .answers import canonical, image_mechanism, invert, regenerate, to_pixels
from .context import Context, Result
from .figures import grey_levels, target

__all__ = ["null"]

_DECODED_AT_ONCE = 100


def null(context: Context) -> Result:
    """Largest error with residuals, L1 without them at 16 and 32 steps."""
    rows = context.rows("rows")
    values = canonical(context.scm, rows)
    models = {"default": context.scm}
    models |= {f"no residuals, {n} steps": settings.without_residuals(context.scm, n) for n in (16, 32)}
    result: Result = {"rows": len(rows), "dtype": str(values.dtype), "settings": []}
    for name, scm in models.items():
        mechanism = image_mechanism(scm)
        noise, up = invert(mechanism, values, rows.digits)
        again, down = regenerate(mechanism, noise, rows.digits, chunk=_DECODED_AT_ONCE)
        images = to_pixels(again)
        figures: Result = {
            "setting": name,
            "largest error": float(abs(images - to_pixels(values)).max()),
            "null L1": grey_levels(images, rows.pixels),
            "null L1 clamped": grey_levels(images.clip(0, 1), rows.pixels),
        }
        result["settings"].append(figures | (up + down).each(len(rows)))
        context.keep(result)
    default, sixteen, thirty_two = result["settings"]
    result["targets"] = [
        target("with residuals: largest error in [0, 1]", default["largest error"], most=1e-4),
        target("without, 16 steps: L1", sixteen["null L1"], most=0.35),
        target("without, 32 steps: L1", thirty_two["null L1"], most=0.1),
    ]
    context.show(f"Null, {len(rows)} rows", result["settings"])
    context.show("Targets", result["targets"])
    return result
