"""HTML by templates that lie beside the modules that fill them: every value is escaped, and must be given."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["page_template"]


@cache
def page_template(package: str, folder: str, name: str, **filters: Callable[[Any], str]) -> Template:
    """A template in a package's folder; it may write bytes by the filter ``base64``, and has further ones."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"base64": lambda data: b64encode(data).decode(), **filters}
    return environment.get_template(name)
