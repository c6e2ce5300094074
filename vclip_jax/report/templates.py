"""The making of pages from the package's templates and style sheet."""

import json
import os
from importlib import resources
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from vclip_jax.evaluation.metrics.table import number
from vclip_jax.files.errors import shown
from vclip_jax.files.writing import write_text
from vclip_jax.report import figures


def render_template(name: str, **values: Any) -> str:
    """Fill in a template of this package; values are escaped."""
    source = resources.files("vclip_jax.report")

    def read(name: str) -> str:
        return source.joinpath(name).read_text("utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["recall"] = _recall
    environment.filters["signed"] = figures.signed
    environment.filters["tojson_plain"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template(name).render(style=Markup(read("style.css")), **values)


def _shown(value: Any) -> Any:
    """Make control characters in names visible, such as those that reverse the text."""
    if type(value) is not str or value.isprintable():
        return value
    return "\n".join(map(shown, value.split("\n")))


def put_page(path: str | os.PathLike[str], page: str) -> epath.Path:
    """Write a page in one step, so that readers never see half of it, and return its path."""
    target = epath.Path(path)
    write_text(target, page)
    return target


def _recall(values: Any, key: str) -> str:
    value = values.get(key) if isinstance(values, dict) else None
    return number(value if figures.is_number(value) else None)
