"""The pages: all repos, one repo, one revision of it, one file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Any
from urllib.parse import quote

import yaml
from starlette.responses import HTMLResponse, Response

from publish.rehearsal.errors import HttpError, entry_not_found
from publish.rehearsal.front_matter import FrontMatterError, read_card
from publish.rehearsal.http.context import RequestContext, timestamp
from publish.rehearsal.names import KINDS, RepoId, file_path, repo_id
from publish.rehearsal.pages.markdown import to_html
from publish.rehearsal.storage.git import Entry, GitRepo

_README = "README.md"
_LARGEST_TEXT = 1 << 20
_MOST_BRANCHES_UNFOLDED = 24
_ON_THE_HUB = re.compile(
    r"https://huggingface\.co(?P<path>/(?P<kind>datasets/)?(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:/.*)?)"
)
_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
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


def show_home(context: RequestContext) -> Response:
    """All public repos."""
    rows = []
    for repo in (repo for kind in KINDS for repo in context.hub.store.list_repos(kind)):
        if context.hub.store.settings(repo).private and not context.owns(repo):
            continue
        git = context.hub.store.git(repo)
        branches = git.refs("refs/heads/")
        newest = max(git.commit_info(tip).time for tip in branches.values())
        when = timestamp(newest)[:16].replace("T", " ")
        rows.append((_link(f"/{repo.web_path}", repo.web_path), f"#{len(branches)}", f"#{when}"))
    if not rows:
        text = f"<p>No repos yet. Point a client here with <code>HF_ENDPOINT={escape(context.base_url)}</code>.</p>"
        return _page("Rehearsal Hub", (), f"<h1>Repositories</h1>{text}")
    return _page(
        "Rehearsal Hub", (), f"<h1>Repositories</h1>{_table(('repository', '#branches', '#last commit'), rows)}"
    )


def show_repo(context: RequestContext) -> Response:
    """The card on main, with the files folded away."""
    return _tree_page(context, "main", "", open_files=False)


def show_tree(context: RequestContext) -> Response:
    return _tree_page(context, context.params["rev"], context.params.get("path", "").strip("/"), open_files=True)


def _tree_page(context: RequestContext, revision: str, folder: str, *, open_files: bool) -> Response:
    """Branches, files of one revision, and its card."""
    repo, git = context.repo, context.open_git()
    commit = git.resolve(revision)
    entries = git.listing(commit, file_path(folder) if folder else "", recursive=False)
    rows = [_file_row(repo, revision, entry) for entry in sorted(entries, key=lambda entry: not entry.is_folder)]
    info = git.commit_info(commit)
    last_commit = f'<p class="soft"><code>{commit[:12]}</code> {escape(info.title)}, by {escape(info.author)}</p>'
    listing = _table(("file", "#size", "id"), rows)
    body = [f'<p class="repo">{escape(repo.full_name)}</p>', _branches(repo, git, revision)]
    body.append(_folded(f"Files of {revision}: {len(rows)}", last_commit + listing, is_open=open_files))
    card = git.text(commit, f"{folder}/{_README}" if folder else _README)
    if card is not None:
        body.append(_card(context, repo, revision, card))
    return _page(f"{repo.full_name} at {revision}", _crumbs(repo, revision), "".join(body))


def show_file(context: RequestContext) -> Response:
    """One file: a rendered card, other text as text, and a link to the content."""
    repo, git, revision = context.repo, context.open_git(), context.params["rev"]
    commit = git.resolve(revision)
    path = file_path(context.params["path"])
    entry = git.entry(commit, path)
    if entry is None or entry.is_folder:
        raise entry_not_found(f"{path} does not exist on this revision", commit)
    raw = _link(_url(repo, "resolve", revision, path), f"raw file, {_format_size(entry.size)}")
    body = f"<h1>{escape(path)}</h1><p>{raw}</p>"
    if entry.pointer is None and entry.size <= _LARGEST_TEXT:
        text = git.text(commit, path) or ""
        body += (
            _card(context, repo, revision, text) if path.endswith(".md") else f"<pre><code>{escape(text)}</code></pre>"
        )
    return _page(f"{path} of {repo.full_name} at {revision}", _crumbs(repo, revision), body)


def _branches(repo: RepoId, git: GitRepo, current: str) -> str:
    """Links to all branches and tags, steps in the order of their numbers."""
    parts = []
    for title, prefix in (("Branches", "refs/heads/"), ("Tags", "refs/tags/")):
        names = sorted(git.refs(prefix), key=_by_number)
        if not names:
            continue
        links = (
            f"<strong>{escape(name)}</strong>" if name == current else _link(_url(repo, "tree", name), name)
            for name in names
        )
        items = "".join(f"<li>{link}</li>" for link in links)
        listing = f'<ul class="names">{items}</ul>'
        parts.append(_folded(f"{title}: {len(names)}", listing, is_open=len(names) <= _MOST_BRANCHES_UNFOLDED))
    return "".join(parts)


def _folded(title: str, content: str, *, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{content}</details>"


def _by_number(name: str) -> tuple[bool, list[tuple[int, str]]]:
    parts = re.findall(r"\d+|\D+", name)
    return name != "main", [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _file_row(repo: RepoId, revision: str, entry: Entry) -> tuple[str, str, str]:
    name = entry.path.rsplit("/", 1)[-1]
    view = "tree" if entry.is_folder else "blob"
    shown = _link(_url(repo, view, revision, entry.path), name + ("/" if entry.is_folder else ""))
    digest = f"sha256 {entry.pointer.oid[:12]}" if entry.pointer else entry.oid[:12]
    return shown, "#" if entry.is_folder else f"#{_format_size(entry.size)}", f'<span class="mono soft">{digest}</span>'


def _card(context: RequestContext, repo: RepoId, revision: str, text: str) -> str:
    """A card: its front matter in a box, then its text."""
    try:
        card = read_card(text)
    except FrontMatterError as error:
        return f"<p><strong>Broken metadata:</strong> {escape(str(error))}</p><pre>{escape(text)}</pre>"
    rows = [(f"<strong>{escape(name)}</strong>", _value(value)) for name, value in card.data.items()]
    shown = to_html(
        card.text,
        lambda path: _url(repo, "resolve", revision) + "/" + path,
        lambda path: _url(repo, "blob", revision) + "/" + path,
        lambda url: _local_url(context, url),
    )
    wide = shown.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    box = f'<div class="metadata">{_table((), rows, "facts")}</div>' if rows else ""
    return f"{box}<article>{wide}</article>"


def _local_url(context: RequestContext, url: str) -> str:
    """The page here for a URL on huggingface.co whose repo this Hub has; any other URL unchanged."""
    found = _ON_THE_HUB.fullmatch(url)
    if found is None:
        return url
    try:
        repo = repo_id("datasets" if found["kind"] else "models", found["owner"], found["name"])
    except HttpError:
        return url
    return found["path"] if context.hub.store.exists(repo) else url


def _value(value: Any) -> str:
    if isinstance(value, list) and all(not isinstance(item, list | dict) for item in value):
        return ", ".join(escape(str(item)) for item in value)
    if isinstance(value, list | dict):
        return f"<pre>{escape(yaml.safe_dump(value, allow_unicode=True, sort_keys=False))}</pre>"
    return escape("" if value is None else str(value))


def _url(repo: RepoId, view: str, revision: str, path: str = "") -> str:
    tail = f"/{quote(path)}" if path else ""
    return f"/{repo.web_path}/{view}/{quote(revision, safe='')}{tail}"


def _crumbs(repo: RepoId, revision: str) -> tuple[str, ...]:
    return _link(f"/{repo.web_path}", repo.web_path), _link(_url(repo, "tree", revision), revision)


def error_page(error: HttpError) -> Response:
    return _page("Error", (), f"<h1>{error.status}</h1><p>{escape(error.message)}</p>", error.status)


def _page(title: str, crumbs: Sequence[str], body: str, status: int = 200) -> HTMLResponse:
    """A page. ``crumbs`` and ``body`` are HTML; ``title`` is text."""
    trail = "".join(f"<span>{crumb}</span>" for crumb in crumbs)
    content = _PAGE.substitute(title=escape(title), style=_STYLE, crumbs=trail, body=body)
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(content, status, headers)


def _link(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = "list") -> str:
    """A table of HTML cells. A cell that starts with ``#`` is a number, aligned to the right."""
    top = "".join(_cell(name, "th") for name in head)
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    first = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="scroll"><table class="{style}">{first}<tbody>{lines}</tbody></table></div>'


def _cell(content: str, tag: str = "td") -> str:
    return f'<{tag} class="number">{content[1:]}</{tag}>' if content.startswith("#") else f"<{tag}>{content}</{tag}>"


def _format_size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


HANDLERS = {"page-home": show_home, "page-repo": show_repo, "page-tree": show_tree, "page-file": show_file}
