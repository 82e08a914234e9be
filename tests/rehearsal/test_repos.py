"""Users, namespaces, private and gated repos, and the information on a repo."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from publish.rehearsal.http.context import user_of
from publish.rehearsal.server import RehearsalHub
from tests.rehearsal.conftest import Commit


def other(hub: RehearsalHub, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_creating_it_again_is_a_409_that_exist_ok_accepts(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as caught:
        api.create_repo(repo)
    assert caught.value.response.status_code == 409
    assert api.create_repo(repo, exist_ok=True).repo_id == repo


def test_kinds_do_not_mix(api: HfApi, repo: str) -> None:
    url = api.create_repo(repo, repo_type="dataset")
    assert (url.repo_id, url.repo_type) == (repo, "dataset")
    api.upload_file(path_or_fileobj=b"a,b\n", path_in_repo="x.csv", repo_id=repo, repo_type="dataset")
    assert "x.csv" not in api.list_repo_files(repo)
    api.delete_repo(repo, repo_type="dataset")
    assert api.repo_exists(repo)
    assert not api.repo_exists(repo, repo_type="dataset")


def test_a_namespace_belongs_to_the_first_user_who_creates_a_repo_in_it(hub: RehearsalHub, api: HfApi) -> None:
    api.create_repo("Some-Org/model", exist_ok=True)
    assert [organization["name"] for organization in api.whoami()["orgs"]] == ["Some-Org"]
    with pytest.raises(HfHubHTTPError) as caught:
        other(hub, "hf_bob").create_repo("Some-Org/another")
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_bob", 403), ("hf_read_alice", 403)])
def test_who_may_not_write(hub: RehearsalHub, repo: str, token: str | bool, status: int) -> None:
    asking = other(hub, token)
    calls = (
        lambda: asking.create_branch(repo, branch="mine"),
        lambda: asking.delete_repo(repo),
        lambda: asking.create_tag(repo, tag="v1"),
        lambda: asking.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo),
        lambda: asking.update_repo_settings(repo, private=True),
        lambda: asking.super_squash_history(repo),
    )
    for call in calls:
        with pytest.raises(HfHubHTTPError) as caught:
            call()
        assert caught.value.response.status_code == status


def test_a_private_repo_is_seen_by_its_owner_alone(hub: RehearsalHub, api: HfApi, repo: str, commit: Commit) -> None:
    commit({"a.txt": b"1"})
    api.update_repo_settings(repo, private=True)
    assert api.repo_info(repo).private
    assert repo in [model.id for model in api.list_models(author="alice")]
    for token in (False, "hf_bob"):
        asking = other(hub, token)
        with pytest.raises(RepositoryNotFoundError):
            asking.repo_info(repo)
        with pytest.raises(RepositoryNotFoundError):
            asking.hf_hub_download(repo, "a.txt")
        with pytest.raises(RepositoryNotFoundError):
            asking.list_repo_refs(repo)
        assert repo not in [model.id for model in asking.list_models(author="alice")]
        assert repo not in httpx2.get(hub.url).text
        assert httpx2.get(f"{hub.url}/{repo}").status_code == 404


def test_files_of_a_gated_repo_are_for_its_owner(hub: RehearsalHub, api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="auto")
    assert api.repo_info(repo).gated == "auto"
    with pytest.raises(GatedRepoError):
        other(hub, "hf_bob").hf_hub_download(repo, ".gitattributes")
    assert api.hf_hub_download(repo, ".gitattributes")


def test_moving(api: HfApi, repo: str, commit: Commit) -> None:
    made = commit({"a.safetensors": b"\0" * 2000})
    api.move_repo(repo, f"{repo}-moved")
    assert api.repo_info(f"{repo}-moved").sha == made
    assert not api.repo_exists(repo)
    api.create_repo(repo)
    with pytest.raises(HfHubHTTPError, match=r"A model repository called .* already exists"):
        api.move_repo(repo, f"{repo}-moved")


def test_repo_info_has_the_metadata_of_the_card(api: HfApi, repo: str, commit: Commit) -> None:
    card = b"---\nlicense: mit\nlanguage: en\ntags: [pythia]\ndatasets: [a/b]\ndate: 2024-01-02\n---\nhi\n"
    commit({"README.md": card, "w.safetensors": b"\0" * 2000})
    info = api.model_info(repo, files_metadata=True)
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    assert {"pythia", "license:mit", "dataset:a/b", "en"} <= set(info.tags or ())
    sizes = {file.rfilename: (file.size, file.lfs and file.lfs.size) for file in info.siblings or ()}
    assert sizes["w.safetensors"] == (2000, 2000)
    assert sizes["README.md"] == (len(card), None)


NAMES = ["alice/..", "alice/.git", "alice/a.git", "../alice", "alice/a--b", "alice/" + "x" * 97, "api/x", "alice/a b"]


@pytest.mark.parametrize("name", NAMES)
def test_invalid_repo_names_are_refused(web: httpx2.Client, name: str) -> None:
    owner, _, rest = name.partition("/")
    assert web.post("/api/repos/create", json={"name": rest, "organization": owner}).status_code == 400


def test_each_token_is_a_separate_user() -> None:
    alice, reader = user_of("Bearer hf_alice"), user_of("Bearer hf_read_alice")
    assert alice is not None
    assert reader is not None
    assert (alice.name, alice.role, reader.name, reader.role) == ("alice", "write", "alice", "read")
    assert user_of("") is None
    long = "hf_" + "aB3" * 12
    hidden = user_of(f"Bearer {long}")
    assert hidden is not None
    assert hidden.name.startswith("user-")  # a real token must not show on a page
    assert long[3:] not in hidden.name
