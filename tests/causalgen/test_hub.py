"""Models on the Hub, against a hub on this machine that speaks its HTTP: one commit, nothing else."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import networkx as nx
import pytest
from huggingface_hub import constants

import causalgen as cg


class Hub(BaseHTTPRequestHandler):
    """Repositories as files by commit; ``log`` holds what was asked."""

    def answer(self, data=b"", status=200, **headers):
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(data)),
            "Content-Type": "application/json",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self):
        self.server.log.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            files = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": 1} for name in self.server.head()
            ]
            found = {
                "id": "me/model",
                "sha": self.server.last,
                "siblings": [{"rfilename": f["path"]} for f in files],
            }
            return self.answer(json.dumps(files if "tree" in parts else found).encode())
        if len(parts) < 5:
            return self.answer(status=404)
        repo, commit, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        files = self.server.commits.get(commit) if repo == "me/model" else None
        if files is None or name not in files:
            code = "RepoNotFound" if repo != "me/model" else "EntryNotFound" if files else "RevisionNotFound"
            return self.answer(status=404, X_Error_Code=code)
        digest = hashlib.sha256(files[name]).hexdigest()
        return self.answer(files[name], ETag=f'"{digest}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def do_POST(self):
        self.server.log.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            return self.answer(json.dumps({"url": f"{constants.ENDPOINT}/me/model"}).encode())
        if "/preupload/" in self.path:
            asked = [{"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]]
            return self.answer(
                json.dumps({"files": [each | {"shouldIgnore": False} for each in asked]}).encode()
            )
        if "/commit/" in self.path:
            files = dict(self.server.head())
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "deletedFile":
                    files.pop(line["value"]["path"], None)
            self.server.last = hashlib.sha1(body).hexdigest()
            self.server.commits[self.server.last] = files
            url = f"{constants.ENDPOINT}/me/model/commit/{self.server.last}"
            return self.answer(json.dumps({"commitUrl": url, "commitOid": self.server.last}).encode())
        return self.answer(b"{}")

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def head(self):
        return self.commits.get(self.last, {})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Server(("127.0.0.1", 0), Hub)
    server.commits, server.log, server.last, server.created = {}, [], None, None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    api = huggingface_hub.HfApi(endpoint=address, token="hf_none")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def scm():
    linear = cg.mechanisms.Additive()
    model = cg.SCM(
        nx.DiGraph([("x", "y")]),
        {"x": cg.Continuous(), "y": cg.Continuous()},
        {"x": linear, "y": linear},
        "two",
    )
    return model.fit({"x": [0.0, 1, 2, 3], "y": [0.1, 1.9, 4.1, 5.9]}, seed=0, progress=False)


def test_a_pushed_model_is_the_one_that_its_commit_gives(hub, scm):
    commit = scm.push_to_hub("me/model")
    # By a newer library, or an older one.
    assert hub.created.get("visibility") == "private" or hub.created.get("private") is True
    assert set(hub.commits[commit]) >= {"scm.yaml", "manifest.json", "README.md", "y.safetensors"}
    card = hub.commits[commit]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: causalgen") and "y  " in card and "me/model" in card
    hub.commits[commit]["pickled.bin"] = b"never asked for"
    hub.log.clear()
    again = cg.SCM.from_pretrained("me/model", revision=commit)
    assert again.to_yaml() == scm.to_yaml()
    assert (
        again.counterfactual({"x": 1.0, "y": 2.5}, do={"x": 2.0})["y"]
        == scm.counterfactual({"x": 1.0, "y": 2.5}, do={"x": 2.0})["y"]
    )
    assert hub.log and all(commit in path and "pickled" not in path for path in hub.log)
    hub.log.clear()
    cg.SCM.from_pretrained("me/model", revision=commit)
    assert hub.log == []  # from the cache


def test_a_file_that_the_manifest_does_not_describe_is_refused(hub, scm):
    commit = scm.push_to_hub("me/model", card="# Ours")
    assert hub.commits[commit]["README.md"] == b"# Ours"
    hub.commits[commit]["scm.yaml"] += b"# more"
    with pytest.raises(cg.ChecksumError, match="scm.yaml is damaged"):
        cg.SCM.from_pretrained("me/model", revision=commit)


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("me/model", None, "revision=.*Nothing was downloaded"),
        ("me/model", "main", "revision is a commit, 40 hexadecimal digits.*got 'main'"),
        ("me/model", 1, "got 1"),
        ("me/../model", "0" * 40, "named as in 'user/model'"),
        ("mnist", "0" * 40, "named as in 'user/model'"),
    ],
)
def test_what_names_no_commit_asks_nothing_of_the_network(hub, name, revision, told):
    with pytest.raises(cg.CheckpointError, match=told):
        cg.SCM.from_pretrained(name, revision=revision)
    assert hub.log == []


def test_what_is_not_there_and_what_cannot_be_reached_is_one_error(hub, scm, monkeypatch):
    scm.push_to_hub("me/model")
    with pytest.raises(
        cg.CheckpointError, match="Cannot get the model me/model at 00000000.*RevisionNotFound"
    ):
        cg.SCM.from_pretrained("me/model", revision="0" * 40)
    with pytest.raises(cg.CheckpointError, match="Cannot get the model you/model.*RepositoryNotFound"):
        cg.SCM.from_pretrained("you/model", revision="0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(cg.CheckpointError, match="the Hub cannot be reached, and the cache lacks it"):
        cg.SCM.from_pretrained("me/model", revision=hub.last)
    with pytest.raises(cg.CheckpointError, match="Cannot push the model to me/model"):
        scm.push_to_hub("me/model")


def test_a_model_that_is_not_fitted_or_has_no_such_name_is_not_pushed(hub, scm):
    with pytest.raises(cg.NotFittedError):
        cg.SCM(scm.graph, scm.variables).push_to_hub("me/model")
    with pytest.raises(cg.CheckpointError, match="named as in"):
        scm.push_to_hub("model")
    assert hub.log == []
