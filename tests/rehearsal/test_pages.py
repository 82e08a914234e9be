"""Pages show repos and cards, and nothing in a card runs or loads anything from elsewhere."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import HfApi

from publish.rehearsal.front_matter import validate_card
from publish.rehearsal.pages.markdown import to_html
from publish.rehearsal.server import RehearsalHub
from tests.rehearsal.conftest import Commit


def html(text: str) -> str:
    return to_html(text, lambda path: f"FILE/{path}", lambda path: f"PAGE/{path}")


def test_the_page_of_a_repo(hub: RehearsalHub, api: HfApi, repo: str, commit: Commit, web: httpx2.Client) -> None:
    card = b"---\nlicense: mit\ntags: [a, b]\n---\n# Title <x>\n\n|a|\n|-|\n|1|\n"
    commit({"README.md": card, "w.safetensors": b"\0" * 2000})
    api.create_branch(repo, branch="step1000")
    api.create_branch(repo, branch="step9")
    page = web.get(f"/{repo}")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "prefers-color-scheme" in page.text
    assert "width=device-width" in page.text
    for part in ("<td>mit</td>", "<td>a, b</td>", "<h1>Title &lt;x&gt;</h1>", "w.safetensors", "2.0 kB", "Branches: 3"):
        assert part in page.text
    assert page.text.index("step9") < page.text.index("step1000")
    assert repo in web.get("/").text
    assert "<h1>Title" in web.get(f"/{repo}/blob/step9/README.md").text
    assert "filter=lfs" in web.get(f"/{repo}/blob/main/.gitattributes").text
    assert web.get(f"/{repo}/tree/step9").status_code == 200


def test_missing_pages_are_404(repo: str, web: httpx2.Client) -> None:
    for path in ("/alice/none", f"/{repo}/tree/none", f"/{repo}/blob/main/none.txt", f"/{repo}/tree/main/none"):
        answer = web.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_broken_metadata_is_shown_as_such(repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({"sub/README.md": b"---\na: [\n---\n<b>x"})
    assert "Broken metadata" in web.get(f"/{repo}/tree/main/sub").text


def test_a_file_is_never_served_as_something_that_runs(repo: str, commit: Commit, web: httpx2.Client) -> None:
    commit({"evil.html": b"<script>alert(1)</script>", "evil.svg": b"<svg onload='alert(1)'/>"})
    for path in ("evil.html", "evil.svg"):
        answer = web.get(f"/{repo}/resolve/main/{path}")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert "html" not in answer.headers["content-type"]


EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    '<a href="java\nscript:alert(1)">a</a>',
    '<a href="&#106;avascript:alert(1)">a</a>',
    "<iframe src=//evil.example></iframe>",
    '<p style="background:url(//evil.example)">x</p>',
    "<svg><script>alert(1)</script></svg>",
    '<img src="https://evil.example/x.png">',
    "![x](//evil.example/x.png)",
    "<style>body{display:none}</style>",
    '<details ontoggle="alert(1)" open>x</details>',
    '<td style="text-align:left;background:url(//evil.example)">x',
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    '<a href=" javascript:alert(1)">x</a>',
    '<img src="data:text/html,<script>alert(1)</script>">',
]


@pytest.mark.parametrize("text", EVIL)
def test_nothing_in_a_card_runs_or_loads_from_elsewhere(text: str) -> None:
    shown = html(text)
    lowered = shown.lower()
    for tag in ("<script", "<iframe", "<svg", "<style", "<object"):
        assert tag not in lowered
    inside = "".join(part.split(">")[0] for part in lowered.split("<")[1:])  # what is in tags, not in text
    for word in ("onerror", "ontoggle", "javascript:", "evil.example", "data:", "url("):
        assert word not in inside


def test_allowed_tags_stay_and_are_closed() -> None:
    picture = '<picture><img src="plots/a%20b.png" alt="p">'
    shown = html(f"<details open><summary>More</summary>\n\n| a |\n|:-:|\n| 1 |\n\n{picture}")
    assert "<details open" in shown
    assert "<summary>More</summary>" in shown
    assert 'style="text-align:center"' in shown
    assert '<img src="FILE/plots/a%20b.png" alt="p">' in shown
    assert shown.count("<details") == shown.count("</details>")
    assert html("[x](docs/a.md#b)").strip() == '<p><a href="PAGE/docs/a.md">x</a></p>'
    assert html("[x](../../../etc)").strip() == "<p><a>x</a></p>"


def test_links_within_a_card_find_their_headings() -> None:
    shown = html("[x](#a-b--c) [y](#a-b--c-1)\n\n## A `b` & c!\n\n## A b & c\n\n<h2 id='own' onclick='x()'>t</h2>")
    assert '<a href="#a-b--c">' in shown
    assert '<span id="a-b--c"></span><h2>' in shown
    assert '<span id="a-b--c-1"></span><h2>' in shown
    assert "onclick" not in shown


def test_links_to_the_hub_lead_here_where_this_hub_has_the_repo(
    hub: RehearsalHub, api: HfApi, repo: str, commit: Commit, web: httpx2.Client
) -> None:
    there, elsewhere = f"https://huggingface.co/{repo}/tree/step9", "https://huggingface.co/alice/none/tree/main"
    tricky = "https://huggingface.co/../../etc"
    commit({"README.md": f"---\nlicense: mit\n---\n[a]({there}) [b]({elsewhere}) [c]({tricky})".encode()})
    text = web.get(f"/{repo}").text
    assert f'<a href="/{repo}/tree/step9">a</a>' in text
    assert f'<a href="{elsewhere}">b</a>' in text
    assert f'<a href="{tricky}">c</a>' in text


def test_valid_cards() -> None:
    metadata = "license: apache-2.0\nlanguage: [en]\ntags: [pythia]\ndatasets: [EleutherAI/pile]"
    assert validate_card(f"---\n{metadata}\nlibrary_name: transformers\n---\n") == ([], [])
    assert validate_card("# no metadata")[1] == ["empty or missing yaml metadata in repo card"]


CARDS = [
    ("license: no-such", '"license" must be one of'),
    ("license: 3", '"license" must be a string'),
    ("license:", '"license" must not be empty'),
    ("language: English", '"language" must be ISO 639'),
    ("tags: pythia", '"tags" must be an array'),
    ("tags: [1]", '"tags[0]" must be a string'),
    ("datasets: [a b]", '"datasets[0]" must be ids'),
    ("model-index: foo", '"model-index" must be an array'),
    ("model-index: [{name: x}]", '"model-index[0].results" must be an array'),
    ("model-index: [{name: x, results: [{task: {type: t}}]}]", '"model-index[0].results[0].dataset" is required'),
    ("a: [", "Invalid YAML metadata"),
    ("a: 1\na: 2", "duplicated mapping key"),
    ("- a", "the metadata is not a mapping"),
]


@pytest.mark.parametrize(("metadata", "message"), CARDS)
def test_invalid_cards(web: httpx2.Client, metadata: str, message: str) -> None:
    answer = web.post("/api/validate-yaml", json={"content": f"---\n{metadata}\n---\n", "repoType": "model"})
    assert answer.status_code == 400
    assert message in answer.json()["errors"][0]["message"]
