"""The frame of a page, and small pieces of HTML. Text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from starlette.responses import HTMLResponse

POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1b19;--soft:#6b6862;--line:#dedad2;--paper:#fbfaf7;--tint:#f1eee7;--link:#1f5c99}
@media(prefers-color-scheme:dark){:root{--ink:#e8e5de;--soft:#a19d95;--line:#3a3833;--paper:#191815;--tint:#24221e;
--link:#8ab8e6}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:52rem;padding:1.5rem 1.25rem 5rem;background:var(--paper);color:var(--ink);
font:1.0625rem/1.6 Charter,"Bitstream Charter","Sitka Text",Cambria,Georgia,serif;overflow-wrap:break-word}
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:.15em}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;margin-bottom:2rem;color:var(--soft);
font-size:.9375rem}
h1,h2,h3,h4{line-height:1.25;margin:2.2em 0 .6em;font-weight:600;text-wrap:balance}
h1{font-size:1.75rem;margin-top:0}h2{font-size:1.3rem}h3{font-size:1.1rem}h4{font-size:1rem}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.9375rem;font-variant-numeric:tabular-nums}
.list{width:100%}
th,td{text-align:left;vertical-align:top;padding:.35rem 1.25rem .35rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600;white-space:nowrap}.number{text-align:right;white-space:nowrap}
code,pre,.mono{font:.875em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
code{background:var(--tint);padding:.1em .3em;border-radius:3px}
pre{background:var(--tint);padding:.9rem 1rem;overflow-x:auto;border-radius:4px}pre code{background:none;padding:0}
blockquote{margin:1rem 0;padding-left:1rem;border-left:3px solid var(--line);color:var(--soft)}
img{max-width:100%;height:auto}hr{border:0;border-top:1px solid var(--line);margin:2rem 0}
td pre{margin:.2rem 0}article{margin-top:2rem}article td:first-child{min-width:6rem}
@media(max-width:32rem){article table{font-size:.8125rem}
th,td{padding-right:.6rem}article td:first-child{min-width:4rem}}
.metadata{border:1px solid var(--line);border-radius:6px;background:var(--tint);padding:.3rem 1rem;margin-top:2rem;
font-size:.9375rem}.metadata .scroll{margin:.2rem 0}.metadata tr:last-child td{border-bottom:0}
.repo{font-size:1.2rem;font-weight:600;margin:0 0 1rem}
details{margin:1rem 0}summary{cursor:pointer}.soft{color:var(--soft)}
.names{display:flex;flex-wrap:wrap;gap:.35rem .9rem;padding:0;list-style:none;font-size:.9375rem}
"""
_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>$style</style></head>
<body><header><a href="/">Rehearsal Hub</a>$crumbs</header>
<main>
$body
</main></body></html>
"""
)


def page(title: str, crumbs: Sequence[str], body: str, status: int = 200) -> HTMLResponse:
    """A whole page. ``crumbs`` and ``body`` are HTML; ``title`` is text."""
    trail = "".join(f"<span>{crumb}</span>" for crumb in crumbs)
    content = _PAGE.substitute(title=escape(title), style=_STYLE, crumbs=trail, body=body)
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(content, status, headers)


def link(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "list") -> str:
    """A table of HTML cells; a cell that starts with ``#`` is a number, set to the right."""
    top = "".join(_cell(name, "th") for name in head)
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    first = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{style}">{first}<tbody>{lines}</tbody></table></div>'


def _cell(content: str, tag: str = "td") -> str:
    return f'<{tag} class="number">{content[1:]}</{tag}>' if content.startswith("#") else f"<{tag}>{content}</{tag}>"


def size(count: int) -> str:
    """Bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
