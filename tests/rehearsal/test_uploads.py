"""Uploads: which files go to LFS, in parts or whole, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from publish.rehearsal.server import RehearsalHub
from publish.rehearsal.storage.git import DEFAULT_GITATTRIBUTES, goes_to_lfs, is_ignored, is_lfs_tracked
from tests.rehearsal.conftest import Commit


def ask(web: httpx2.Client, repo: str, oid: str, size: int, **more: Any) -> dict[str, Any]:
    body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": [{"oid": oid, "size": size}], **more}
    answer = web.post(f"/{repo}.git/info/lfs/objects/batch", json=body)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()["objects"][0]
    return found


def test_a_large_file_comes_in_parts(api: HfApi, hub: RehearsalHub, repo: str, commit: Commit) -> None:
    weights = os.urandom((3 << 19) + 17)
    commit({"model.safetensors": weights})
    requests = hub.stats().requests
    assert (requests["lfs-part"], requests["lfs-complete"], requests["lfs-verify"]) == (4, 1, 1)
    assert Path(api.hf_hub_download(repo, "model.safetensors")).read_bytes() == weights


def test_an_object_that_the_repo_has_is_not_sent_again(
    api: HfApi, hub: RehearsalHub, repo: str, commit: Commit
) -> None:
    weights = os.urandom(50_000)
    commit({"a.safetensors": weights})
    hub.reset_stats()
    commit({"b.safetensors": weights})
    assert "lfs-upload" not in hub.stats().requests
    assert hub.stats().bytes_in < 5000


def test_preupload_gives_modes_and_ids_of_existing_files(repo: str, commit: Commit, web: httpx2.Client) -> None:
    weights = os.urandom(2000)
    commit({"w.safetensors": weights, "a.txt": b"1"})
    files = [
        {"path": "w.safetensors", "size": 2000, "sample": base64.b64encode(weights[:512]).decode()},
        {"path": "a.txt", "size": 1, "sample": base64.b64encode(b"2").decode()},
        {"path": "new.txt", "size": 11_000_000, "sample": base64.b64encode(b"text").decode()},
        {"path": "plot.png", "size": 100, "sample": base64.b64encode(b"\x89PNG\0").decode()},
    ]
    found = web.post(f"/api/models/{repo}/preupload/main", json={"files": files}).json()["files"]
    assert [file["uploadMode"] for file in found] == ["lfs", "regular", "lfs", "lfs"]
    assert found[0]["oid"] == hashlib.sha256(weights).hexdigest()
    assert found[1]["oid"] == hashlib.sha1(b"blob 1\x001").hexdigest()
    assert "oid" not in found[2]


def test_an_upload_with_another_digest_or_size_is_refused(repo: str, web: httpx2.Client) -> None:
    oid = hashlib.sha256(b"right").hexdigest()
    upload = ask(web, repo, oid, 5)["actions"]["upload"]["href"]
    for wrong in (b"wrong", b"righ", b"right and more"):
        assert httpx2.put(upload, content=wrong).status_code == 400
    assert "actions" in ask(web, repo, oid, 5)  # nothing was kept
    assert httpx2.put(upload, content=b"right").status_code == 200
    assert "actions" not in ask(web, repo, oid, 5)


def test_an_upload_without_a_signature_is_refused(repo: str, web: httpx2.Client) -> None:
    oid = hashlib.sha256(b"right").hexdigest()
    upload = ask(web, repo, oid, 5)["actions"]["upload"]["href"]
    assert httpx2.put(upload.split("?")[0], content=b"right").status_code == 403
    assert httpx2.put(upload.replace("size=5", "size=6"), content=b"right!").status_code == 403


def test_parts_that_do_not_fit_are_refused(repo: str, web: httpx2.Client) -> None:
    data = os.urandom((1 << 20) + 5)
    oid = hashlib.sha256(data).hexdigest()
    upload = ask(web, repo, oid, len(data))["actions"]["upload"]
    step = int(upload["header"]["chunk_size"])
    etags = [
        httpx2.put(upload["header"][f"{number:05d}"], content=data[(number - 1) * step :][:step]).headers["etag"]
        for number in (1, 2, 3)
    ]
    parts = [{"partNumber": number, "etag": etag} for number, etag in enumerate(etags, 1)]
    for wrong in (parts[:2], parts[1:], [*parts[:2], {"partNumber": 3, "etag": etags[0]}], [{"part": 1}]):
        assert httpx2.post(upload["href"], json={"oid": oid, "parts": wrong}).status_code == 400
    assert httpx2.post(upload["href"], json={"oid": oid, "parts": parts}).status_code == 200
    assert httpx2.post(upload["href"], json={"oid": oid, "parts": parts}).status_code == 200  # a lost answer


def test_invalid_oids_are_refused_one_by_one(repo: str, web: httpx2.Client) -> None:
    for oid in ("../../x", "A" * 64, "", "0" * 63):
        assert ask(web, repo, oid, 1)["error"]["code"] == 422


def test_files_can_be_uploaded_before_the_commit(api: HfApi, hub: RehearsalHub, repo: str) -> None:
    addition = CommitOperationAdd("w.safetensors", b"\0" * 3000)
    api.preupload_lfs_files(repo, [addition])
    hub.reset_stats()
    api.create_commit(repo, [addition], commit_message="m")
    assert "lfs-upload" not in hub.stats().requests
    assert api.get_paths_info(repo, "w.safetensors")[0].path == "w.safetensors"


def test_a_stock_client_with_hf_xet_can_push(
    api: HfApi, hub: RehearsalHub, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    datas = [os.urandom(700_000) for _ in range(3)]
    (tmp_path / "up").mkdir()
    for number, data in enumerate(datas[:2]):
        (tmp_path / "up" / f"{number}.safetensors").write_bytes(data)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "up")
    api.upload_file(path_or_fileobj=datas[2], path_in_repo="2.safetensors", repo_id=repo)
    assert "lfs-batch" not in hub.stats().requests
    assert hub.stats().bytes_in_by_route["xet"] == 2_100_000
    for number, data in enumerate(datas):
        assert Path(api.hf_hub_download(repo, f"{number}.safetensors")).read_bytes() == data
    repository = hub.root / "repos" / "models" / f"{repo}.git"
    assert list((repository / "xet").iterdir()) == []  # the upload is removed once the commit has it


PATTERNS = [
    ("model.safetensors", True),
    ("a/b/model.safetensors", True),
    ("saved_model/x.txt", True),
    ("saved_model/a/x.txt", True),
    ("events.tfevents.1", True),
    ("x.tar.gz", True),
    ("config.json", False),
    ("safetensors", False),
    ("model.safetensors.index.json", False),
]


@pytest.mark.parametrize(("path", "expected"), PATTERNS)
def test_the_usual_patterns(path: str, expected: bool) -> None:
    assert is_lfs_tracked(path, DEFAULT_GITATTRIBUTES) is expected


def test_later_attributes_decide() -> None:
    attributes = "*.bin filter=lfs\nsmall.bin -filter\n/top.txt filter=lfs\n[z-a].x filter=lfs\n"
    assert is_lfs_tracked("a.bin", attributes)
    assert not is_lfs_tracked("small.bin", attributes)
    assert is_lfs_tracked("top.txt", attributes)
    assert not is_lfs_tracked("sub/top.txt", attributes)


def test_text_stays_in_git_and_binary_does_not() -> None:
    assert not goes_to_lfs("a.txt", 100, "é".encode()[:1] * 0 + b"text", "")
    assert not goes_to_lfs("a.txt", 600, b"a" * 510 + "é".encode()[:1], "")  # a character cut by the sample's end
    assert goes_to_lfs("a.x", 100, b"\xff\xfe\x00", "")
    assert not goes_to_lfs("empty.bin", 0, b"", DEFAULT_GITATTRIBUTES)


def test_gitignore() -> None:
    text = "*.log\n!keep.log\nbuild/\n# comment\n/top\n"
    assert is_ignored("a/b.log", text)
    assert not is_ignored("keep.log", text)
    assert is_ignored("build/x.txt", text)
    assert not is_ignored("build", text)
    assert is_ignored("top", text)
    assert not is_ignored("a/top", text)
