"""Pages in headless Chromium, in a frame of the wanted width, because its windows cannot be as narrow."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--virtual-time-budget=4000",
)  # fmt: skip
_MEASURE = """<body style="margin:0"><iframe id="f" style="border:0;width:{width}px;height:900px"></iframe><script>
const frame = document.getElementById("f"), say = value => {{ document.title = JSON.stringify(value) }};
frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument, root = page.documentElement, box = node => node.getBoundingClientRect();
  say({{
    width: root.scrollWidth,
    outside: [...page.querySelectorAll("body *")].filter(node => !node.closest("table, pre"))
      .filter(node => box(node).right > {width} + 1).map(node => node.tagName),
    scrolling: [...page.querySelectorAll(".scroll")].filter(node => node.scrollWidth > node.clientWidth + 1).length,
    tables: page.querySelectorAll("article table").length,
    pictures: [...page.images].map(node => [node.getAttribute("src"), node.naturalWidth]),
    loaded: frame.contentWindow.performance.getEntriesByType("resource").map(node => node.name),
    dead: [...page.querySelectorAll('a[href^="#"]')].map(node => node.getAttribute("href").slice(1))
      .filter(name => !page.getElementById(name)),
    ran: frame.contentWindow.ran === undefined ? 0 : frame.contentWindow.ran,
    text: page.body.innerText,
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    ink: frame.contentWindow.getComputedStyle(page.body).color,
  }})
}}, 500);
frame.srcdoc = {page};
</script>"""


def chromium() -> str:
    """The browser; the test is skipped where it is not installed."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no chromium is installed")
    return found


def run(folder: Path, arguments: list[str], *, dark: bool) -> str:
    """Run the browser on ``arguments`` with a new profile; its standard output."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [chromium(), *_FLAGS, *scheme, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(url: str, folder: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """How the page lies in a window of ``width`` pixels: see ``_MEASURE``."""
    origin = "/".join(url.split("/")[:3])
    text = httpx2.get(url).text.replace("<head>", f'<head><base href="{origin}/">', 1)
    page = folder / f"page-{width}-{dark}.html"
    page.write_text(_MEASURE.format(width=width, page=json.dumps(text).replace("</", "<\\/")), "utf-8")
    dom = run(folder, ["--dump-dom", f"file://{page}"], dark=dark)
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title, "the page did not load"
    return dict(json.loads(html.unescape(title[1])))
