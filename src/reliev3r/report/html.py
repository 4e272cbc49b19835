"""The report: one self-contained HTML file that says in plain language how good a run is, and shows why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import flatten
from reliev3r.core.types import Tracks
from reliev3r.export.maps import colour_map, data_uri, depth_scale
from reliev3r.export.points import view_colours
from reliev3r.geometry.collapse_signs import GOOD_ANGLE_DEG
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.report.figures import CameraPlot, camera_svg, curve_svgs, write_overview
from reliev3r.report.page import write_page
from reliev3r.report.pictures import WORST_ANGLE_DEG, TrackLayer, badness_colour, view_pictures

_MOST_VIEWS = 24
_OVERVIEW_VIEWS = 4

_FIGURES = {
    "median_angle_deg": ("{:.2f}°", "median angle error of matches held out of training (good: below 1°)"),
    "mean_angle_deg": ("{:.2f}°", "mean angle error of the same matches; a few false matches raise it"),
    "share_below_1_deg": ("{:.0%}", "of the held-out matches are within 1°"),
    "baseline_to_depth": ("{:.2f}", "distance between cameras over distance to the scene (collapsed: below 0.01)"),
    "rotation_spread_deg": ("{:.0f}°", "median rotation between two cameras"),
    "confident_share": ("{:.0%}", "of the pixels are confident (W above 1)"),
}


def write_report(
    path: Path | str,
    *,
    reconstruction: Reconstruction,
    refined: Reconstruction | None = None,
    tracks: Tracks | None = None,
    heldout: Tracks | None = None,
    label_depth: Tensor | Sequence[np.ndarray] | None = None,
    metrics: Sequence[dict[str, Any]] = (),
    quality: Mapping[str, Any] | None = None,
    scores: str | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    photograph: Callable[[int], np.ndarray] | None = None,
    look: str | None = None,
) -> None:
    """Write ``path`` (HTML) and ``overview.png`` beside it.

    What is shown is ``refined`` where it is given. Pictures, plots and styles are inside the file; nothing is loaded
    from anywhere. ``tracks`` and ``heldout`` [v, m]
    are in original pixels; ``label_depth`` is the expert's depth [v, h, w] (not positive or not finite: unknown);
    ``metrics`` are the rows of ``metrics.jsonl``; ``quality`` the truth-free figures, its "alarms" a list of sentences;
    ``scores`` a plain-text table against ground truth; ``photograph(view)`` gives an original image as RGB uint8 (else
    the network's small input is shown); ``look`` is the address of the page to look around in (``export.view``), as
    seen from this one, and is linked to. At most 24 views, evenly spaced, have a row of their own.
    """
    best = reconstruction if refined is None else refined
    shown = evenly_spaced(range(len(best.names)), _MOST_VIEWS)
    layer = TrackLayer.of(best, tracks, heldout)
    labels = None if label_depth is None else np.stack([np.asarray(depth) for depth in label_depth])
    pictures = {
        view: view_pictures(best, view, label_depth=labels, layer=layer, photograph=photograph) for view in shown
    }
    plot = CameraPlot.of(reconstruction, refined, tracks)
    body = [
        _summary(reconstruction, quality or {}, scores, notes),
        _cameras(plot, look),
        _views(best, pictures, layer, look),
        _training(metrics),
        _settings(reconstruction, settings or {}),
    ]
    write_page(path, title="Reliev3R report", body=body)
    chosen = evenly_spaced(shown, _OVERVIEW_VIEWS)
    write_overview(Path(path).parent / "overview.png", [pictures[view] for view in chosen], plot)


def _summary(
    reconstruction: Reconstruction, quality: Mapping[str, Any], scores: str | None, notes: Sequence[str]
) -> str:
    meta, alarms = reconstruction.meta, list(quality.get("alarms", ()))
    facts = [f"{len(reconstruction.names)} views"]
    facts += [str(meta["system"])] if "system" in meta else []
    facts += [f"{meta['steps']:,} steps in {meta['seconds']:.0f} s"] if {"steps", "seconds"} <= meta.keys() else []
    parts = [f'<h1>Reconstruction report</h1><p class="faint">{escape(" · ".join(facts))}</p>']
    parts += [f'<p class="alarm"><b>Alarm:</b> {escape(alarm)}</p>' for alarm in alarms]
    angle = quality.get("median_angle_deg")
    if quality and not alarms and angle is not None and angle > GOOD_ANGLE_DEG:
        parts.append(
            f'<p class="alarm"><b>Not good yet:</b> half of the held-out matches are off by {angle:.2f}° or more.</p>'
        )
    elif quality and not alarms:
        parts.append('<p class="fine">No alarms: the checks that need no ground truth found nothing wrong.</p>')
    cards = [
        f'<div class="card"><b>{escape(form.format(quality[name]))}</b><span>{escape(meaning)}</span></div>'
        for name, (form, meaning) in _FIGURES.items()
        if quality.get(name) is not None
    ]
    parts.append(f'<div class="cards">{"".join(cards)}</div>' if cards else "")
    remarks = [note for note in notes if note not in alarms]
    if remarks:
        parts.append(f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note)}</li>' for note in remarks)}</ul>")
    if scores:
        parts.append(f"<h2>Scores against ground truth</h2><pre>{escape(scores)}</pre>")
    return "".join(parts)


def _cameras(plot: CameraPlot, look: str | None) -> str:
    about = "Each wedge is a camera, numbered and coloured in the order of the views; dots are points from the tracks."
    if plot.before is not None:
        about += " Filled: refined by bundle adjustment. Outlines: as the network predicted them."
    figures = [
        f"<figure><figcaption>{title}</figcaption>{camera_svg(plot, side=side)}</figure>"
        for title, side in (("From above", False), ("From the side", True))
    ]
    return (
        f'<h2>Cameras and points</h2><p class="faint">{about} Units are the network\'s own: the scale of the scene is '
        f'unknown.</p>{_link(look)}<div class="plots">{"".join(figures)}</div>'
    )


def _link(look: str | None) -> str:
    return "" if look is None else f'<p><a href="{escape(look)}">Look around in 3D</a></p>'


def _views(
    reconstruction: Reconstruction, pictures: Mapping[int, Any], layer: TrackLayer | None, look: str | None
) -> str:
    near, far = depth_scale(reconstruction.prediction.depth)
    with_pseudo = next(iter(pictures.values())).pseudo_depth is not None
    title = "Depth and pseudo depth" if with_pseudo else "Depth"
    about = "one logarithmic scale for all views"
    about += "; each pseudo depth is scaled to match, grey is unknown" if with_pseudo else ""
    legend = [_ramp(title, "depth", f"{near:.2f} (near)", f"{far:.2f} (far)", about)]
    if reconstruction.prediction.knows_confidence:
        legend.append(_ramp("Confidence W", "conf", "0 (ignored)", "2 (sure)", "how far the pseudo depth is trusted"))
    if layer is not None:
        legend.append(_track_legend())
    titles = ["Image and tracks" if layer is not None else "Image", "Pseudo depth", "Predicted depth", "Confidence"]
    rows = []
    colours = view_colours(len(reconstruction.names))
    for view, picture in pictures.items():
        images = [picture.image, picture.pseudo_depth, picture.depth, picture.confidence]
        cells = "".join(
            f'<figure><img alt="{title}, view {view}" src="{data_uri(image)}"><figcaption>{title}</figcaption></figure>'
            for title, image in zip(titles, images, strict=True)
            if image is not None
        )
        dot = f'<span class="dot" style="background:rgb({",".join(map(str, colours[view]))})"></span>'
        name = reconstruction.names[view]
        stand = f' · <a href="{escape(look)}#camera={quote(name, safe="")}">stand here</a>' if look else ""
        rows.append(
            f'<section class="view"><h3>{dot}{view} · {escape(name)} '
            f'<span class="faint">{_view_facts(reconstruction, layer, view)}{stand}</span></h3>'
            f'<div class="row">{cells}</div></section>'
        )
    total = len(reconstruction.names)
    which = "" if len(pictures) == total else f'<p class="faint">{len(pictures)} of {total} views, evenly spaced.</p>'
    return (
        f'<h2>Views</h2><div class="legend">{"".join(legend)}</div>{which}'
        f'<div style="--columns:{2 + with_pseudo + reconstruction.prediction.knows_confidence}">{"".join(rows)}</div>'
    )


def _view_facts(reconstruction: Reconstruction, layer: TrackLayer | None, view: int) -> str:
    conf = reconstruction.prediction.conf[view]
    facts = [f"median confidence {conf.median():.2f}"] if reconstruction.prediction.knows_confidence else []
    if layer is not None:
        residual = layer.residual_deg[view, layer.tracks.visible[view]]
        median = f", median {residual.median():.2f}° off" if len(residual) else ""
        facts.insert(0, f"{len(residual)} tracks{median}")
    return " · ".join(facts)


def _ramp(title: str, kind: str, low: str, high: str, about: str) -> str:
    colours = colour_map(np.linspace(0, 1, 12)[None], 0.0, 1.0, kind=kind)[0]
    return _gradient(title, colours.tolist(), low, high, about)


def _track_legend() -> str:
    colours = [badness_colour(bad) for bad in np.linspace(0, 1, 6)]
    about = "angle between the ray and the point that all cameras triangulate; rings were held out of training"
    return _gradient("Tracks", colours, "0° (agrees)", f"{WORST_ANGLE_DEG:.0f}° or more", about)


def _gradient(title: str, colours: Sequence[Sequence[int]], low: str, high: str, about: str) -> str:
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in colours)
    return (
        f'<div><b>{title}</b> <span class="faint">{about}</span>'
        f'<span class="ramp" style="background:linear-gradient(90deg,{stops})"></span>'
        f'<span class="ends"><span>{low}</span><span>{high}</span></span></div>'
    )


def _training(metrics: Sequence[dict[str, Any]]) -> str:
    plots = [f"<figure><figcaption>{escape(t)}</figcaption>{svg}</figure>" for t, svg in curve_svgs(metrics)]
    if not plots:
        return ""
    return f'<h2>Training</h2><div class="plots">{"".join(plots)}</div>'


def _settings(reconstruction: Reconstruction, settings: Mapping[str, Any]) -> str:
    about = ""
    if reconstruction.meta:
        about += f'<p class="faint">Where the numbers come from</p>{_table(reconstruction.meta)}'
    if settings:
        about += f"<details><summary>All settings of the run</summary>{_table(settings)}</details>"
    return f"<h2>Settings</h2>{about}" if about else ""


def _table(values: Mapping[str, Any]) -> str:
    rows = (f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in flatten(dict(values)).items())
    return f"<table>{''.join(rows)}</table>"
