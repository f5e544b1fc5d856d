"""How the templates of all pages are filled."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def templates(package: str) -> Environment:
    """Return the templates in a package's folder. Everything that is put into them is escaped, and nothing may lack."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment


def percent(share: float) -> str:
    """Return a share of 1 in percent: with few digits, and never as nothing or all where it is not."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    if value < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if value > 99.9 else f"{value:.1f} %"
