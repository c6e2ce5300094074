"""The demo's answers as HTML; `Markup` escapes all text of visitors and files."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from vclip_jax.data.images.decode import decode
from vclip_jax.data.images.opening import ImageError
from vclip_jax.demo.answers import MIDDLE, Answer, Score
from vclip_jax.demo.index import Hit
from vclip_jax.evaluation.examples import jpeg_uri

THUMBNAIL = 224


def warning() -> str:
    """Return the warning at the top of the page."""
    return Markup(
        '<div class="vc-warning" role="note"><b>Research software, not a medical device: nothing '
        "here is a diagnosis.</b> Scores compare the prompts that you chose with each other. One "
        "of them always comes first, even if none is true.</div>"
    )


def message(text: str) -> str:
    """Return a line of text in place of an answer."""
    return Markup('<p class="vc-message">{}</p>').format(text)


def photograph(picture: npt.NDArray[np.uint8], caption: str) -> str:
    """Return a picture, uint8 `[h, w, 3]`, with a caption."""
    return Markup(
        '<figure class="vc-figure"><img alt="{0}" src="{1}"><figcaption>{0}</figcaption></figure>'
    ).format(caption, jpeg_uri(picture))


def scores(answer: Answer) -> str:
    """Return a bar for each class, most probable first, with its interval over wordings."""
    parts = [_bars(answer.classes, answer.wordings)]
    if answer.groups:
        heading = Markup("<h4>Groups of classes, as in the dataset of this prompt set</h4>")
        parts += [heading, _bars(answer.groups, answer.wordings)]
    return Markup('{}<div class="vc-scores">{}{}{}{}</div>').format(
        _refusal(answer.gate),
        Markup().join(parts),
        _notes(answer.notes),
        _explanation(answer),
        _calibration(answer),
    )


def _refusal(gate: Sequence[str]) -> Markup:
    """Return a warning about a refused photograph."""
    if not gate:
        return Markup()
    return Markup(
        '<div class="vc-warning" role="note"><b>Refused: {}.</b> Do not use the scores '
        "below: one class comes first for every picture.</div>"
    ).format("; ".join(gate))


def _calibration(answer: Answer) -> Markup:
    """Return a sentence about the calibration of the scores."""
    entry = answer.calibration
    if entry is None:
        return Markup("<p>The probabilities are not calibrated.</p>")
    return Markup("<p>Calibrated on {} photographs of {} ({}).</p>").format(
        entry.n, entry.data, entry.method
    )


def _notes(notes: Sequence[str]) -> Markup:
    """Return notes about words that the model does not read."""
    return Markup().join(Markup("<p><b>{}</b></p>").format(note) for note in notes)


def _explanation(answer: Answer) -> Markup:
    if answer.wordings < 2:
        return Markup(
            "<p>Every class has one wording, so there is no interval. Type several wordings, with "
            "| between them, to see how much the scores depend on the wording.</p>"
        )
    best = answer.classes[answer.best]
    agree = round(best.first * answer.wordings)
    low, high = (f"{100 * quantile:.0f}" for quantile in MIDDLE)
    return Markup(
        "<p>Bars: all wordings together. Lines and brackets: from the {} % to the {} % quantile of "
        "{} choices of one wording per class. <b>{} of {} choices put {} first.</b></p>"
    ).format(low, high, answer.wordings, agree, answer.wordings, best.name)


def _bars(rows: Sequence[Score], wordings: int) -> Markup:
    ranked = sorted(rows, key=lambda row: -row.probability)
    return Markup("<table>{}</table>").format(
        Markup().join(_bar(row, wordings > 1) for row in ranked)
    )


def _bar(row: Score, interval: bool) -> Markup:
    line = bracket = Markup()
    if interval:
        line = Markup('<i style="left:{:.1f}%;width:{:.1f}%"></i>').format(
            100 * row.low, 100 * (row.high - row.low)
        )
        bracket = Markup(" <small>[{:.2f}, {:.2f}]</small>").format(row.low, row.high)
    return Markup(
        '<tr><th scope="row">{}</th><td class="vc-track"><span style="width:{:.1f}%"></span>{}</td>'
        '<td class="vc-number">{:.2f}{}</td></tr>'
    ).format(row.name, 100 * row.probability, line, row.probability, bracket)


def captions(hits: Sequence[Hit], about: str) -> str:
    """Return captions with their cosines, and their source."""
    rows = Markup().join(
        Markup('<tr><td class="vc-number">{:.3f}</td><td>{}</td></tr>').format(hit.cosine, hit.item)
        for hit in hits
    )
    return Markup(
        '<div class="vc-scores"><table>{}</table><p>Cosine of the photograph with the caption; '
        "{}.</p></div>"
    ).format(rows, about)


def gallery(
    hits: Sequence[Hit], root: str | os.PathLike[str], about: str, notes: Sequence[str] = ()
) -> str:
    """Return found photographs as thumbnails without metadata, with their names and cosines.

    Notes about words of the text that the model does not read come first.
    """
    return Markup('{}<div class="vc-gallery">{}</div><p class="vc-message">{}</p>').format(
        _notes(notes),
        Markup().join(_thumbnail(hit, Path(root)) for hit in hits),
        f"{about}. Below each photograph is its cosine with the text.",
    )


def _thumbnail(hit: Hit, root: Path) -> Markup:
    name = os.path.relpath(hit.item, root)
    try:
        picture = decode(Path(hit.item).read_bytes(), THUMBNAIL, "pad", "fast", key=name)
    except (OSError, ImageError):  # deleted or changed since it was embedded
        return Markup(
            "<figure><figcaption>{} cannot be read any more</figcaption></figure>"
        ).format(name)
    return Markup(
        '<figure><img alt="{0}" src="{1}"><figcaption>{0}<br>{2:.3f}</figcaption></figure>'
    ).format(name, jpeg_uri(picture), hit.cosine)
