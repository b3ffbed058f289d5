"""Tables and self-contained HTML pages with pictures."""

import base64
import html
import io

import numpy as np
import tensorflow as tf

escape = html.escape


def page(title, headline, parts):
    """The text of a page.

    Args:
        title, headline: plain text.
        parts: list of HTML.
    """
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "img{max-width:100%;image-rendering:auto}pre{background:#f4f4f4;padding:1em}"
        "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;"
        "text-align:left}"
        f"</style><h1>{escape(title)}</h1><p>{escape(headline)}</p>{''.join(parts)}</html>\n"
    )


def table(header, rows):
    """A table of plain texts."""

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(header, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def markdown(header, rows):
    """A table of texts as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def image(png):
    """PNG bytes as an element."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def figure(drawn):
    """A `matplotlib.figure.Figure` as an element."""
    drawn.tight_layout()
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110)
    return image(buffer.getvalue())


def grid(rows, pad=2):
    """Rows of images of one size, lists or arrays of HxWx3 in 0..255, as an element."""
    h, w = rows[0][0].shape[:2]
    shape = (len(rows) * (h + pad), max(map(len, rows)) * (w + pad), 3)
    picture = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            top, left = i * (h + pad), j * (w + pad)
            picture[top : top + h, left : left + w] = np.clip(np.round(pixels), 0, 255)
    zoom = max(1, 80 // w)
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return image(tf.io.encode_png(picture).numpy())
