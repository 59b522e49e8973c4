"""Report: an evaluation as one self-contained HTML page."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ddpm.clips import Clips
from ddpm.files import write_durably
from ddpm.metrics.classifier import NOTE, Classification
from ddpm.metrics.comparison import Measured, measures
from ddpm.metrics.memorisation import Memorisation, nearest
from ddpm.metrics.suite import Evaluation, Score
from ddpm.metrics.text import ARROW, headline, meanings, number, ordered, rank, title
from ddpm.metrics.verdict import Finding, is_far
from ddpm.viz import evaluation_plots as plots
from ddpm.viz.plots import picture_bytes
from ddpm.viz.render import draw_clips, gif_bytes
from ddpm.viz.viewer import embedded, viewer

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262b; max-width: 1240px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin: 2em 0 .3em; border-bottom: 1px solid #dde1e6; }
p.note, figcaption { color: #5a6270; font-size: .88em; max-width: 68em; margin: .3em 0; } img { max-width: 100%; height: auto; }
ul { color: #5a6270; font-size: .88em; columns: 2; padding-left: 1.2em; } @media (max-width: 700px) { ul { columns: 1; } }
table { border-collapse: collapse; font-size: .8em; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .16em .6em; white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #40444b; }
tr.group td { padding-top: .9em; font-weight: 600; border-bottom: 1px solid #dde1e6; }
tbody tr:hover td { background: #f4f6f8; } td.far { background: #fbe6da; font-weight: 600; } td.near { background: #e2f0f8; }
td.pale, small { color: #7b8390; }
.warning { border-left: 5px solid #D55E00; background: #fdf3ec; padding: .5em .9em; margin: .6em 0; }
.fine { border-left: 5px solid #0072B2; background: #eef6fb; padding: .5em .9em; margin: .6em 0; }
.wide { overflow-x: auto; }
.sides { display: flex; flex-wrap: wrap; gap: 1.2em; align-items: flex-start; } figure { margin: .6em 0; }
pre { font-size: .8em; }
"""

HEADINGS = ("How far apart the distributions are", "How real, and how varied", "Physics")


def write_report(
    path: Path,
    name: str,
    lead: str,
    evaluation: Evaluation,
    wrong: Sequence[Finding],
    generated: Clips,
    real: Clips,
    training: Clips | None,
    about: Mapping[str, Any],
) -> None:
    """Write the page of what is called ``name``, whole or not at all.

    Args:
        lead: one sentence on both sets.
        training: whole training recordings, None if copies were not searched for.
        about: origin of everything, for the last section.
    """
    mine, theirs = Measured.of(generated), Measured.of(real)
    units = {name: unit for name, (unit, _) in measures(real.skeleton).items()}
    planes = [feature for feature in ("kinetic", "pose") if feature in theirs.features]
    warnings = "".join(f'<div class="warning"><b>{html.escape(f.name)}</b>: {html.escape(f.text)}.</div>' for f in wrong)
    evenly = torch.linspace(0, len(real) - 1, min(len(real), 9)).round().long()
    far = sum(is_far(m) for m in evaluation.metrics.values())
    parts = [
        f"<h1>Evaluation</h1><p class='note'>{html.escape(name)}<br>{html.escape(lead)}.</p>",
        f"<p>{'<br>'.join(html.escape(part) for part in headline(evaluation))}</p>",
        warnings or '<div class="fine">Nothing freezes, explodes, jitters or collapses.</div>',
        f"<p>{far} of {len(evaluation.metrics)} metrics are worse than the floors, beyond the intervals (shaded).</p>",
        "<h2>Samples</h2>",
        '<div class="sides">',
        _clips(generated.take(slice(9)), "<b>Generated</b>: the first 9 clips, not chosen. Orange is the person's right."),
        _clips(real.take(evenly), "<b>Real</b>: 9 reference clips, evenly chosen."),
        "</div>",
        embedded(viewer(generated.take(slice(8)), real=real.take(nearest(generated.take(slice(8)), real)[1]))),
        f"<p class='note'>{BESIDE}</p>",
        "<h2>Between real and degraded</h2>",
        _plot(plots.plot_scale(evaluation), SCALE),
        "<h2>All metrics</h2>",
        f"<p class='note'>{TABLE} Each repeat compares {evaluation.clips['generated_compared']} generated and "
        f"{evaluation.clips['reference_compared']} real clips.</p>",
        _table(evaluation),
        "<h2>Speed, jerk and the rest, clip by clip</h2>",
        _plot(plots.plot_numbers(mine, theirs, units), NUMBERS),
        "<h2>Bones and frequencies</h2>",
        *([_plot(plots.plot_bones(generated, real), BONES)] if real.skeleton.bones else []),
        _plot(plots.plot_spectrum(mine, theirs, real.fps), SPECTRUM),
        "<h2>Both sets in the plane</h2>",
        _plot(plots.plot_planes(mine, theirs, planes), PLANES),
    ]
    if evaluation.classification is not None:
        parts += ["<h2>Which actions a classifier sees</h2>", _classified(evaluation.classification)]
    if evaluation.memorisation is not None and training is not None:
        parts += ["<h2>Copied from training?</h2>", _copies(evaluation.memorisation, generated, training)]
    parts += ["<h2>Provenance</h2>", f"<pre>{html.escape(json.dumps(about, indent=1, default=str))}</pre>"]
    title = html.escape(f"Evaluation: {name}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><body>'
    write_durably(path, (head + "\n".join(parts) + "</body></html>\n").encode())


BESIDE = (
    "The first 8 generated clips, each beside the real clip that comes closest to it; o lays one over the other. Drag to turn, "
    "click to enlarge, ? for the keys."
)
SCALE = (
    "Distances between generated and real clips, divided by the distance between two halves of the real ones: 1 is as good as "
    "real. A filled dot is further away than real clips and clips of other people are. Grey: real clips made worse on purpose, "
    "as a scale. What is beyond 1000 is drawn there. Kernel distances are left out, since theirs between real clips is about 0."
)
TABLE = (
    "↓ lower is better, ↑ higher, ≈ close to real. <b>Real</b>: one half of the real clips against the other, what "
    "a perfect model would reach. <b>People</b>: the same with disjoint subjects. Grey: real clips, degraded. Brackets: 95 % "
    "over random halves; orange where those of generated lie beyond those of both floors. Features are computed from positions, "
    "without a trained network, except those of the classifier where there is one."
)
NUMBERS = (
    "Each clip is one number. A good model has the distribution of real clips; low values are not better, since a frozen clip "
    "has no jerk. The outermost bars hold everything beyond them."
)
BONES = (
    "Median over the clips and the middle 80 %: bones should be as long, and differ as much between clips, as those of real "
    "people."
)
SPECTRUM = (
    "How fast joints swing: median clip and middle 80 %. Too much on the right is shaking, too little is smoothing; joints count "
    "relative to the root."
)
PLANES = (
    "Principal components fitted to the real clips. Orange where there is no blue is motion that does not exist; blue without "
    "orange is motion that is missing. Two of many dimensions: overlap here does not prove overlap."
)


def _table(evaluation: Evaluation) -> str:
    ceilings = list(next(iter(evaluation.metrics.values())).degraded)
    head = "".join(f"<th>{c.replace('_', ' ')}</th>" for c in ceilings)
    rows, group = [], -1
    for name in ordered(evaluation):
        m, means = evaluation.metrics[name], evaluation.means.get(name.removeprefix("physics/"))
        if rank(name)[0] != group:
            group = rank(name)[0]
            rows.append(f'<tr class="group"><td colspan="{4 + len(ceilings)}">{HEADINGS[group]}</td></tr>')
        called = title(name, m, evaluation.clips["generated"]).replace("_", " ").replace("^2", "²").replace("^3", "³")
        if means is not None:
            called += f"<br><small>mean {number(means['generated'])} generated, {number(means['reference'])} real</small>"
        people = "" if m.by_subject is None else _with_interval(m.by_subject)
        worse = "".join(f'<td class="pale">{number(score.value)}</td>' for score in m.degraded.values())
        rows.append(
            f"<tr><td>{ARROW[m.better]} {called}</td>"
            f'<td class="{"far" if is_far(m) else "near"}">{_with_interval(m.generated)}</td>'
            f"<td>{_with_interval(m.real)}</td><td>{people}</td>{worse}</tr>"
        )
    columns = f"<th>metric</th><th>generated</th><th>real</th><th>people</th>{head}"
    words = "".join(f"<li><b>{part}</b>: {html.escape(text)}</li>" for part, text in meanings(evaluation))
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class='wide'>{table}</div><details open><summary>What the names mean</summary><ul>{words}</ul></details>"


def _with_interval(score: Score) -> str:
    return f"{number(score.value)} [{number(score.low)}, {number(score.high)}]"


def _classified(j: Classification) -> str:
    asked = ""
    if j.generated_accuracy is not None and j.asked is not None:
        asked = f" It recognises {100 * j.generated_accuracy:.0f} % of {int(j.asked.sum())} generated clips with a label."
    metric = "" if j.in_metrics else " No distance in its features is given: it was trained on clips of the reference."
    text = (
        f"Share of clips that the classifier puts into each class. {NOTE[0].upper()}{NOTE[1:]}. It was trained on {j.trained} "
        f"and is right on {100 * j.accuracy:.0f} % of {int(j.tested.sum())} held-out ones, the real clips here; the "
        f"commonest class would be right on {100 * j.chance:.0f} %. Its mean confidence is "
        f"{j.confidence['generated']:.2f} on generated clips, {j.confidence['real']:.2f} on real ones.{asked}{metric}"
    )
    return _plot(plots.plot_classification(j), text)


def _copies(found: Memorisation, generated: Clips, training: Clips) -> str:
    """The samples closest to training, each beside the closest window of the closest recording."""
    pairs, titles = [], []
    for i in found.samples.argsort()[:6].tolist():
        k = int(found.neighbours[i])
        sample = generated.take(torch.tensor([i]))
        recording = training.positions[k, : int(training.lengths[k])]
        length = min(int(sample.lengths), len(recording))
        windows = recording.unfold(0, length, 1).permute(0, 3, 1, 2)
        cut = Clips.whole(sample.positions[:, :length], sample.fps, sample.skeleton)
        window = windows[int(nearest(cut, Clips.whole(windows, sample.fps, sample.skeleton))[1])]
        pairs += [cut.positions[0], window]
        titles += [f"sample {i}", f"{100 * float(found.samples[i]):.1f} cm"]
    lengths, clips = [len(p) for p in pairs], pad_sequence(pairs, batch_first=True).float().numpy()
    drawn = draw_clips(clips, generated.skeleton, titles=titles, columns=6, size=140, lengths=lengths, fps=generated.fps)
    text = (
        f"The 6 samples closest to training, each with the training motion beside it and their distance. {len(found.suspects)} "
        f"of {len(found.samples)} samples are closer than {100 * found.limit:.1f} cm, which one in a hundred held-out real "
        f"clips is. A sample is closer to training than a held-out clip with probability {found.closer_than_held_out:.2f}: 0.5 "
        "if it is as new as those, 1 for copies; more than 0.5 is expected where the held-out people are others."
    )
    return _figure(gif_bytes(drawn, generated.fps), "gif", text)


def _clips(clips: Clips, caption: str) -> str:
    positions, lengths = clips.positions.numpy(), clips.lengths.tolist()
    drawn = draw_clips(positions, clips.skeleton, columns=3, size=160, lengths=lengths, fps=clips.fps)
    return _figure(gif_bytes(drawn, clips.fps), "gif", caption)


def _plot(figure: "plots.Figure", caption: str) -> str:
    return _figure(picture_bytes(figure), "png", caption)


def _figure(content: bytes, kind: str, caption: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<figure><img alt="" src="data:image/{kind};base64,{data}"><figcaption>{caption}</figcaption></figure>'
