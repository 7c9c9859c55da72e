"""The shell of the report pages and their parts: one HTML file that needs nothing else.

No network, no font of its own, and no script but the one a page is built with; a content security
policy in the page makes sure. Words given to these functions are escaped here; what they call
``html`` is inserted as it is and comes from these functions, from `charts` or from ``templates/``.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
NO_NUMBER = "—"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Heading:
    """What stands above a page.

    Attributes:
        kicker: The command, in small letters.
        title: What the page is about.
        lead: A sentence on what it shows.
    """

    kicker: str
    title: str
    lead: str


@dataclass(frozen=True)
class Script:
    """What makes a page move.

    Attributes:
        code: JavaScript; the page's policy allows this text alone, by its hash.
        style: CSS that is put behind that of all pages.
        media: Where sound and video may come from, as a content security policy names it.
    """

    code: str
    style: str = ""
    media: str = ""


def build_page(
    heading: Heading, html: Sequence[str], footer: str, *, script: Script | None = None
) -> str:
    """Return the whole page.

    Args:
        heading: Its head.
        html: Sections in order; empty ones are left out.
        footer: The last line.
        script: What runs at the end of the page; None for a page that stands still.
    """
    style = template("report.css")
    return Template(template("report.html")).substitute(
        policy=_policy(script),
        script=f"<script>{script.code}</script>\n" if script else "",
        kicker=escape(heading.kicker),
        title=escape(heading.title),
        lead=escape(heading.lead),
        footer=escape(footer),
        style=f"{style}\n{script.style}" if script else style,
        main="\n".join(part for part in html if part),
    )


def data_block(name: str, data: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return JSON for the page's script to read from the element of that name.

    JSON has no NaN and no Infinity. No text in it can end the element it stands in.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def bytes_block(name: str, data: bytes) -> str:
    """Return bytes for the page's script to read, as base64, from the element of that name."""
    text = base64.b64encode(data).decode("ascii")
    return f'<script type="application/octet-stream" id="{escape(name)}">{text}</script>'


def section(title: str, *html: str) -> str:
    """Return a part of the page under a heading; nothing when it has no content."""
    content = "\n".join(part for part in html if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain words."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """Return a paragraph in small quiet letters."""
    return f'<p class="note">{escape(text)}</p>'


def command(text: str) -> str:
    """Return a block of what to type, or of a file's text."""
    return f"<pre><code>{escape(text)}</code></pre>"


def details(summary: str, *html: str) -> str:
    """Return content that opens with a click."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(html)}</details>"


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Return large figures side by side: what it is, the figure, and a few words on it."""
    boxes = [
        f'<div class="tile"><span>{escape(what)}</span><b>{escape(figure)}</b>'
        f"<span>{escape(words)}</span></div>"
        for what, figure, words in entries
    ]
    return f'<div class="tiles">{"".join(boxes)}</div>' if boxes else ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    strong: Sequence[int] = (),
    breaks: Sequence[int] = (),
) -> str:
    """Return a table of figures; the first cell of each row names it.

    Args:
        head: Names of the columns.
        rows: Cells as text.
        strong: Rows that stand out, by position.
        breaks: Rows that begin a group, by position.
    """
    # Long names, such as those of files, may break after an underscore.
    names = [escape(cell).replace("_", "_<wbr>") for cell in head]
    first = "".join(f'<th scope="col">{name}</th>' for name in names)
    kinds = [
        " ".join(["strong"] * (number in strong) + ["break"] * (number in breaks))
        for number in range(len(rows))
    ]
    body = "".join(_row(cells, kind) for cells, kind in zip(rows, kinds, strict=True))
    return (
        f'<div class="wide"><table><thead><tr>{first}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values below each other; pairs without a value are left out."""
    body = "".join(_row(pair) for pair in pairs if pair[1])
    return f'<div class="wide"><table class="words"><tbody>{body}</tbody></table></div>'


def charts(*html: str) -> str:
    """Return figures side by side where there is room for it."""
    return f'<div class="charts">{"".join(html)}</div>' if any(html) else ""


def picture(jpeg: bytes, *, title: str, words: str, size_wh: tuple[int, int]) -> str:
    """Return a photo inside the page.

    Args:
        jpeg: The bytes of a JPEG file.
        title: Its headline; may be empty.
        words: What it shows; also read to those who cannot see it.
        size_wh: Its (width, height) in pixels, so that the page does not jump.
    """
    data = base64.b64encode(jpeg).decode("ascii")
    width, height = size_wh
    headline = f"<b>{escape(title)}</b>" if title else ""
    spoken = f"{title}: {words}" if title else words
    return (
        f'<figure class="picture"><img src="data:image/jpeg;base64,{data}" width="{width}"'
        f' height="{height}" loading="lazy" alt="{escape(spoken)}">'
        f"<figcaption>{headline}{escape(words)}</figcaption></figure>"
    )


def pictures(html: Sequence[str], *, large: bool = False) -> str:
    """Return pictures in a grid, or below each other when they are large."""
    kind = "pictures large" if large else "pictures"
    return f'<div class="{kind}">{"".join(html)}</div>' if html else ""


def figure(value: float | None, decimals: int = 3) -> str:
    """Return a number as text; a dash where there is none: None, NaN, or COCO's -1."""
    if value is None or not math.isfinite(value) or value == -1:
        return NO_NUMBER
    return f"{value:,.{decimals}f}"


def duration(seconds: float | None) -> str:
    """Return a time span such as ``1 h 05 min``, ``3 min 20 s`` or ``4.2 s``."""
    if seconds is None or not math.isfinite(seconds):
        return NO_NUMBER
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _row(cells: Sequence[str], kind: str = "") -> str:
    name, *values = cells
    kind = f' class="{kind}"' if kind else ""
    rest = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr{kind}><th scope="row">{escape(name)}</th>{rest}</tr>'


def _policy(script: Script | None) -> str:
    if script is None:
        return POLICY
    digest = base64.b64encode(hashlib.sha256(script.code.encode("utf-8")).digest()).decode("ascii")
    media = f"; media-src {script.media}" if script.media else ""
    return f"{POLICY}; script-src 'sha256-{digest}'{media}; base-uri 'none'; form-action 'none'"


@cache
def template(name: str) -> str:
    """Return a file of ``templates/`` without white space around it."""
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()
