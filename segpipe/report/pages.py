"""Templates -> one self-contained page: no network, no file beside it. All that comes from users is escaped.

The templates lie in `templates/`; what they ask of a number is a filter here, and so is what all pages tell of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segpipe.report import names
from segpipe.report.svg import css_colour
from segpipe.types import ClassInfo, EvalReport

STYLE = "page.css"


def render(template: str, **content: Any) -> str:
    """A page from a template of this room; `style` is there already. A name that the template lacks is an error."""
    environment = _environment()
    style = Markup(environment.get_template(STYLE).render())  # noqa: S704 - a file of ours, which nobody fills in
    return environment.get_template(template).render(style=style, **content)


def script(name: str) -> Markup:
    """A script of this room, to stand inside a page."""
    return Markup(_environment().get_template(name).render())  # noqa: S704 - as the style


def named(info: ClassInfo) -> dict[str, Any]:
    """A class as tables and the viewer show it."""
    return {"name": info.name, "colour": info.colour}


def ribbon(report: EvalReport, classes: Sequence[ClassInfo]) -> list[tuple[tuple[int, int, int], float]]:
    """The colour of each class and its share of all truth in percent; equal shares where nothing is counted."""
    truth = report.truth_counts if sum(report.truth_counts) else (1,) * len(classes)
    return [(info.colour, n / sum(truth) * 100) for info, n in zip(classes, truth, strict=True)]


@cache
def _environment() -> Environment:
    # Of every template, whatever its name: class names and file names are other people's text.
    environment = Environment(
        loader=PackageLoader("segpipe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": names.metric,
        "share": names.share,
        "signed": names.signed,
        "percent": names.percent,
        "count": names.count,
        "digits": names.digits,
        "css": css_colour,
        "cell": _cell,
    }
    return environment


def _cell(value: float | None) -> str:
    """A share in whole percent, as a cell of a table says it."""
    if value is None:
        return ""
    return "·" if value < 0.005 else f"{100 * value:.0f}"
