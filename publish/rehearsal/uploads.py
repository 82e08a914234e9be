"""What comes before a commit: which files go to LFS, and whether a card's metadata is right."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from starlette.responses import Response

from publish.rehearsal.call import Call, answer
from publish.rehearsal.gitattributes import goes_to_lfs, ignored
from publish.rehearsal.names import file_path
from publish.rehearsal.refusals import Refusal, bad_request
from publish.rehearsal.validate import check_card

_MOST_FILES = 256


def preupload(call: Call) -> Response:
    """Upload mode of every file, and the id of what lies there already: that drives a client's no-op detection."""
    if not call.flag("create_pr"):
        call.may_write(call.repo)
    else:
        call.writer()
    git = call.readable()
    commit = git.resolve(call.params["rev"])
    asked = call.json()
    files = asked.get("files")
    if not isinstance(files, list):
        raise bad_request('"files" must be a list')
    if len(files) > _MOST_FILES:
        raise Refusal(413, f"At most {_MOST_FILES} files at once")
    attributes = git.text(commit, ".gitattributes") or ""
    gitignore = str(asked.get("gitIgnore") or git.text(commit, ".gitignore") or "")
    answers = []
    for each in files:
        path, size, sample = _file(each)
        entry = git.entry(commit, path)
        mode = "lfs" if goes_to_lfs(path, size, sample, attributes) else "regular"
        document: dict[str, Any] = {"path": path, "uploadMode": mode, "shouldIgnore": ignored(path, gitignore)}
        if entry is not None and not entry.is_folder:
            document["oid"] = entry.pointer.oid if entry.pointer else entry.oid
        answers.append(document)
    return answer({"files": answers, "commitOid": commit})


def _file(document: object) -> tuple[str, int, bytes]:
    if not isinstance(document, dict) or not isinstance(document.get("size"), int):
        raise bad_request("A file is {path, sample, size}")
    try:
        sample = base64.b64decode(str(document.get("sample") or ""), validate=True)
    except binascii.Error as error:
        raise bad_request(f"The sample of {document.get('path')} is no base64") from error
    return file_path(document.get("path")), document["size"], sample


def validate_yaml(call: Call) -> Response:
    """Always JSON: a client parses the body before it looks at the status."""
    asked = call.json()
    if not isinstance(asked.get("content"), str):
        raise bad_request('"content" must be a string')
    errors, warnings = check_card(asked["content"], str(asked.get("repoType") or "model"))
    document = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return answer(document, 400 if errors else 200)


HANDLERS = {"preupload": preupload, "validate-yaml": validate_yaml}
