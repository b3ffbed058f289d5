"""HTML pages in one file, with tables, figures and images; Markdown tables."""

import base64
import html
import io

import numpy as np
import tensorflow as tf

escape = html.escape
# Light or dark as the reader's system is; wide tables and code scroll on a phone, not the page.
STYLE = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;"
    "overflow-wrap:anywhere}"
    "img{max-width:100%;image-rendering:auto;background:#fff}"
    "pre{background:#8882;padding:1em;overflow-x:auto}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #8886;text-align:left}"
    "td,th{overflow-wrap:break-word}"
    "summary{cursor:pointer;font-size:1.5em;font-weight:bold;margin:.8em 0}"
    ".columns{display:grid;gap:1em;grid-template-columns:repeat(auto-fill,minmax(min(100%,24em),1fr))}"
    "figure{margin:0}figcaption.bad{color:#c00;font-weight:bold}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}a{color:#8bf}"
    "figcaption.bad{color:#f77}}"
)


def page(title: str, headline: str, parts: list[str]) -> str:
    """The HTML of a page.

    Args:
        title: plain text.
        headline: plain text below the title.
        parts: HTML of the page's content, in order.

    Example:
        >>> html = page("A run", "2 epochs", [table(["epoch", "loss"], [[1, 7.6], [2, 7.1]])])
    """
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f'<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{escape(headline)}</p>{''.join(parts)}</html>\n"
    )


def table(header: list, rows: list[list]) -> str:
    """An HTML table; cells are shown as plain text."""

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def folded(title: str, content: str) -> str:
    """An HTML element that shows its content once the title is clicked.

    Args:
        title: plain text.
        content: HTML.
    """
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def captioned(content: str, text: str, is_good: bool = True) -> str:
    """An HTML figure with a sentence below it, which is red if something is wrong.

    Args:
        content: HTML of the picture.
        text: plain text.
        is_good: whether the picture shows what it should.
    """
    style = "good" if is_good else "bad"
    return f"<figure>{content}<figcaption class={style}>{escape(text)}</figcaption></figure>"


def columns(items: list[str]) -> str:
    """HTML elements beside each other, as many as fit into the width of the screen."""
    return f"<div class=columns>{''.join(items)}</div>"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def image(png: bytes) -> str:
    """An HTML element of the bytes of a PNG file."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(drawing) -> str:
    """An HTML element of a `matplotlib.figure.Figure`."""
    drawing.tight_layout()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=110)
    return image(buffer.getvalue())


def grid(rows: list, pad: int = 2) -> str:
    """An HTML element of images in rows.

    Args:
        rows: lists or arrays of images of one size, HxWx3 in 0..255.
        pad: white pixels between the images.
    """
    h, w = rows[0][0].shape[:2]
    shape = (len(rows) * (h + pad), max(map(len, rows)) * (w + pad), 3)
    picture = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            top = i * (h + pad)
            left = j * (w + pad)
            picture[top : top + h, left : left + w] = np.clip(np.round(pixels), 0, 255)
    zoom = max(1, 80 // w)
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return image(tf.io.encode_png(picture).numpy())
