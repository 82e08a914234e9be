"""Pages for people: which repos there are, what is in their branches, and how a card reads."""

from __future__ import annotations

import re
from html import escape
from typing import Any
from urllib.parse import quote

import yaml
from starlette.responses import Response

from publish.rehearsal.call import Call
from publish.rehearsal.frontmatter import FrontMatterError, read_card
from publish.rehearsal.gitrepo import Entry, GitRepo
from publish.rehearsal.html import link, page, size, table
from publish.rehearsal.markdown import to_html
from publish.rehearsal.names import KINDS, RepoId, file_path
from publish.rehearsal.refusals import Refusal, entry_not_found
from publish.rehearsal.repos import timestamp

_README = "README.md"
_LARGEST_TEXT = 1 << 20


def home(call: Call) -> Response:
    """All public repos."""
    rows = []
    for repo in (repo for kind in KINDS for repo in call.hub.store.all_repos(kind)):
        if call.hub.store.settings(repo).private and not call.owns(repo):
            continue
        git = call.hub.store.git(repo)
        branches = git.refs("refs/heads/")
        newest = max(git.commit_info(tip).time for tip in branches.values())
        when = timestamp(newest)[:16].replace("T", " ")
        rows.append((link(f"/{repo.web_path}", repo.web_path), f"#{len(branches)}", f"#{when}"))
    if not rows:
        text = f"<p>Nothing here yet. Point a client at it with <code>HF_ENDPOINT={escape(call.base)}</code>.</p>"
        return page("Rehearsal Hub", (), f"<h1>Repositories</h1>{text}")
    return page("Rehearsal Hub", (), f"<h1>Repositories</h1>{table(('repository', '#branches', '#last commit'), rows)}")


def repository(call: Call) -> Response:
    return _tree_page(call, "main", "")


def tree(call: Call) -> Response:
    return _tree_page(call, call.params["rev"], call.params.get("path", "").strip("/"))


def _tree_page(call: Call, revision: str, folder: str) -> Response:
    """Branches, files of one revision, and its card."""
    repo, git = call.repo, call.readable()
    commit = git.resolve(revision)
    entries = git.listing(commit, file_path(folder) if folder else "", recursive=False)
    rows = [_file_row(repo, revision, entry) for entry in sorted(entries, key=lambda each: not each.is_folder)]
    info = git.commit_info(commit)
    told = f'<p class="soft"><code>{commit[:12]}</code> {escape(info.title)}, by {escape(info.author)}</p>'
    body = [f"<h1>{escape(repo.full_name)}</h1>", _branches(repo, git, revision)]
    body += [f"<h2>Files of {escape(revision)}</h2>{told}", table(("file", "#size", "id"), rows)]
    card = git.text(commit, f"{folder}/{_README}" if folder else _README)
    if card is not None:
        body.append(f"<hr>{_card(repo, revision, card)}")
    return page(f"{repo.full_name} at {revision}", _crumbs(repo, revision), "".join(body))


def file(call: Call) -> Response:
    """One file: a card as it reads, other text as text, everything else as a link to its bytes."""
    repo, git, revision = call.repo, call.readable(), call.params["rev"]
    commit = git.resolve(revision)
    path = file_path(call.params["path"])
    entry = git.entry(commit, path)
    if entry is None or entry.is_folder:
        raise entry_not_found(f"{path} does not exist on this revision", commit)
    raw = link(_url(repo, "resolve", revision, path), f"the file itself, {size(entry.size)}")
    body = f"<h1>{escape(path)}</h1><p>{raw}</p>"
    if entry.pointer is None and entry.size <= _LARGEST_TEXT:
        text = git.text(commit, path) or ""
        body += _card(repo, revision, text) if path.endswith(".md") else f"<pre><code>{escape(text)}</code></pre>"
    return page(f"{path} of {repo.full_name} at {revision}", _crumbs(repo, revision), body)


def _branches(repo: RepoId, git: GitRepo, here: str) -> str:
    """All branches and tags, steps in the order of their numbers."""
    parts = []
    for title, prefix in (("Branches", "refs/heads/"), ("Tags", "refs/tags/")):
        names = sorted(git.refs(prefix), key=_by_number)
        if not names:
            continue
        items = "".join(
            f"<li>{f'<strong>{escape(name)}</strong>' if name == here else link(_url(repo, 'tree', name), name)}</li>"
            for name in names
        )
        is_long = "" if len(names) > 24 else " open"
        parts.append(
            f'<details{is_long}><summary>{title}: {len(names)}</summary><ul class="names">{items}</ul></details>'
        )
    return "".join(parts)


def _by_number(name: str) -> tuple[bool, list[tuple[int, str]]]:
    parts = re.findall(r"\d+|\D+", name)
    return name != "main", [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _file_row(repo: RepoId, revision: str, entry: Entry) -> tuple[str, str, str]:
    name = entry.path.rsplit("/", 1)[-1]
    view = "tree" if entry.is_folder else "blob"
    shown = link(_url(repo, view, revision, entry.path), name + ("/" if entry.is_folder else ""))
    digest = f"sha256 {entry.pointer.oid[:12]}" if entry.pointer else entry.oid[:12]
    return shown, "#" if entry.is_folder else f"#{size(entry.size)}", f'<span class="mono soft">{digest}</span>'


def _card(repo: RepoId, revision: str, text: str) -> str:
    """Front matter as a table, the rest as it reads."""
    try:
        card = read_card(text)
    except FrontMatterError as error:
        return f"<p><strong>Broken metadata:</strong> {escape(str(error))}</p><pre>{escape(text)}</pre>"
    rows = [(f"<strong>{escape(name)}</strong>", _value(value)) for name, value in card.data.items()]
    shown = to_html(
        card.text,
        lambda path: _url(repo, "resolve", revision) + "/" + path,
        lambda path: _url(repo, "blob", revision) + "/" + path,
    )
    wide = shown.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    return (table((), rows, "facts") if rows else "") + f"<article>{wide}</article>"


def _value(value: Any) -> str:
    if isinstance(value, list) and all(not isinstance(each, list | dict) for each in value):
        return ", ".join(escape(str(each)) for each in value)
    if isinstance(value, list | dict):
        return f"<pre>{escape(yaml.safe_dump(value, allow_unicode=True, sort_keys=False))}</pre>"
    return escape("" if value is None else str(value))


def _url(repo: RepoId, view: str, revision: str, path: str = "") -> str:
    tail = f"/{quote(path)}" if path else ""
    return f"/{repo.web_path}/{view}/{quote(revision, safe='')}{tail}"


def _crumbs(repo: RepoId, revision: str) -> tuple[str, ...]:
    return link(f"/{repo.web_path}", repo.web_path), link(_url(repo, "tree", revision), revision)


def not_found(refusal: Refusal) -> Response:
    """A refusal as a page."""
    return page("Not here", (), f"<h1>{refusal.status}</h1><p>{escape(refusal.message)}</p>", refusal.status)


HANDLERS = {"page-home": home, "page-repo": repository, "page-tree": tree, "page-file": file}
