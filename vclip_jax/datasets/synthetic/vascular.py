"""Vein occlusion and hypertensive retinopathy: their blood, cotton wool and exudate."""

import numpy as np

from vclip_jax.datasets.synthetic import retinopathy, vessels
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.geometry import (
    Eye,
    Stream,
    length,
    quadrant_angle,
    scatter,
    stream,
)
from vclip_jax.datasets.synthetic.marks import Canvas


def paint_deep(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint deep blood of an occlusion, and the macular star of malignant hypertension."""
    view, occlusion = canvas.view, case.vein_occlusion
    if occlusion.kind == "none" and case.hypertensive.grade < 3:
        return
    rng = stream(case, Stream.OCCLUSION)
    if occlusion.kind != "none":
        sector = quadrant_angle(occlusion.quadrant) if occlusion.kind == "branch" else None
        n = int((25 if occlusion.kind == "branch" else 60) * (0.4 + occlusion.severity))
        place = scatter(rng, n, view, eye, within=(2.0, 90), sector=sector)
        retinopathy.blots(canvas, place, np.clip(rng.lognormal(-1.0, 0.5, n), 0.15, 1.3), rng)
    if case.hypertensive.grade >= 3 and rng.random() < 0.35 + 0.3 * case.hypertensive.disc_swelling:
        star = retinopathy.macular_star(rng, rng.uniform(0.3, 1))
        retinopathy.paint_exudates(canvas, [star], rng)


def paint_over(canvas: Canvas, case: Case, eye: Eye) -> None:
    """Paint superficial blood and cotton-wool spots."""
    view, occlusion, pressure = canvas.view, case.vein_occlusion, case.hypertensive
    if occlusion.kind == "none" and not pressure.grade:
        return
    rng = stream(case, Stream.PRESSURE)
    if occlusion.kind != "none":
        branch = occlusion.kind == "branch"
        sector = quadrant_angle(occlusion.quadrant) if branch else None
        n = int((30 if branch else 50) * (0.25 + occlusion.severity))
        for reach in (9.0, 17.0 if branch else 24.0):  # densest near the disc
            place = scatter(rng, n, view, eye, centre=eye.disc, within=(3.2, reach), sector=sector)
            keep = length(place) > 2.0
            retinopathy.flames(canvas, place[keep], eye, rng, size=rng.uniform(0.7, 1.1))
        wool = scatter(
            rng,
            int(rng.poisson(4 * occlusion.severity)),
            view,
            eye,
            centre=eye.disc,
            within=(4, 13),
            sector=sector,
        )
        retinopathy.cotton_wool(canvas, wool, eye, rng)
    place = scatter(rng, pressure.flame_haemorrhages, view, eye, centre=eye.disc, within=(3.4, 12))
    retinopathy.flames(canvas, place, eye, rng)
    wool = scatter(rng, pressure.cotton_wool_spots, view, eye, centre=eye.disc, within=(4.2, 12))
    retinopathy.cotton_wool(canvas, wool, eye, rng)


def nick_veins(tree: list[vessels.Branches], case: Case, eye: Eye) -> list[vessels.Branches]:
    """Narrow the veins where arteries cross them, at up to the case's number of crossings."""
    wanted = case.hypertensive.arteriovenous_nicking
    if not wanted:
        return tree
    rng = stream(case, Stream.NICKING)
    trunks = tree[0]
    arteries = trunks.points[~trunks.vein].reshape(-1, 2)
    veins = trunks.points[trunks.vein]
    dx, dy = (veins[..., i, None] - arteries[:, i] for i in (0, 1))
    gap = np.sqrt((dx * dx + dy * dy).min(-1))
    gap[length(veins - eye.disc) < 0.8 * eye.disc_diameter] = np.inf
    gap += rng.uniform(0, 0.3, gap.shape)
    width = trunks.width.copy()
    rows = np.flatnonzero(trunks.vein)
    for _ in range(wanted):
        vein, at = np.unravel_index(np.argmin(gap), gap.shape)
        width[rows[vein], max(at - 1, 0) : at + 2] *= 0.3
        gap[vein, max(at - 4, 0) : at + 5] = np.inf
    return [vessels.Branches(trunks.points, width, trunks.vein), *tree[1:]]
