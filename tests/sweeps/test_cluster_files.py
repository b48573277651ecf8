"""The files of docs/clusters, each by its own tool's validator where that is installed, and by what they must say.

The validators of Kubernetes: pip install kubernetes-validate, and ISOFLOP_KUBERAY_CRDS names a folder with KubeRay's
ray.io_rayclusters.yaml and ray.io_rayjobs.yaml (helm-chart/kuberay-operator/crds of its repository).
"""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.test_house import CODE

FOLDER = CODE / "docs" / "clusters"
SLURM = FOLDER / "slurm.sh"
CRDS = os.environ.get("ISOFLOP_KUBERAY_CRDS")


@pytest.fixture
def kuberay():
    cluster, job = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    return cluster, job


def pods(cluster, job):
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [*(group["template"] for group in groups), job["spec"]["submitterPodTemplate"]]


# ------------------------------------------------------------------------------------------------------------ KubeRay


def test_kuberay_has_a_token_a_head_without_work_a_rack_and_one_store(kuberay):
    cluster, job = kuberay
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert {spec["headGroupSpec"]["rayStartParams"][f"num-{what}"] for what in ("cpus", "gpus")} == {"0"}
    for group in spec["workerGroupSpecs"]:
        assert set(group["labels"]) == {"rack"}
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 60, "checkpoints take up to a minute"
    for pod in pods(cluster, job)[:-1]:
        (container,) = pod["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        roots = {each["name"]: each["value"] for each in container["env"]}
        assert roots["ISOFLOP_ROOT"].startswith(mounts["shared"])
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}} in pod["spec"]["volumes"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert job["spec"]["clusterSelector"]["ray.io/cluster"] == cluster["metadata"]["name"]


def schema(kind):
    """KubeRay's own, closed: the server would drop an unknown field in silence."""
    (path,) = Path(str(CRDS)).glob(f"ray.io_{kind.lower()}s.yaml")
    (version,) = [
        v
        for v in yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
        if v["name"] == "v1"
    ]
    found = version["schema"]["openAPIV3Schema"]
    close(found)
    found["properties"]["metadata"] = {"type": "object"}
    return found


def close(part):
    if isinstance(part, dict):
        if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
        if part.get("x-kubernetes-int-or-string"):
            part.pop("type", None)
        for inner in part.values():
            close(inner)
    elif isinstance(part, list):
        for inner in part:
            close(inner)


@pytest.mark.skipif(CRDS is None, reason="ISOFLOP_KUBERAY_CRDS names no folder of KubeRay's CRDs")
def test_kuberay_takes_both(kuberay):
    jsonschema = pytest.importorskip("jsonschema")
    for found in kuberay:
        jsonschema.Draft7Validator(schema(found["kind"])).validate(found)
    wrong = copy.deepcopy(kuberay[0])
    wrong["spec"]["authOptions"]["mode"] = "tokens"
    wrong["spec"]["headGroupSpec"]["rayStartParam"] = {}
    assert len(list(jsonschema.Draft7Validator(schema("RayCluster")).iter_errors(wrong))) == 2, "it would have said so"


def test_kubernetes_takes_the_pods(kuberay):
    validate = pytest.importorskip("kubernetes_validate")
    for template in pods(*kuberay):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        validate.validate(pod, "1.31", strict=True)
        pod["spec"]["containers"][0]["imagee"] = "x"
        with pytest.raises(validate.ValidationError):
            validate.validate(pod, "1.31", strict=True)


# ------------------------------------------------------------------------------------------------------------- ray up


def test_ray_up_takes_it():
    from ray.autoscaler._private import util

    written = yaml.safe_load((FOLDER / "ray-up.yaml").read_text())
    util.validate_config(util.prepare_config(copy.deepcopy(written)))
    with pytest.raises(Exception, match="max_worker"):
        util.validate_config({**written, "max_worker": 3})
    starts = [
        word
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for word in written[key]
        if "ray start" in word
    ]
    assert len(starts) == 2
    for words in starts:
        assert "RAY_AUTH_MODE=token" in words
        assert "ISOFLOP_ROOT=/shared" in words
    assert "--num-cpus=0 --num-gpus=0" in starts[0]
    assert "--labels=rack=" in starts[1]


# -------------------------------------------------------------------------------------------------------------- Slurm


def test_slurm_script_is_bash_and_gives_notice_before_the_end():
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    text = SLURM.read_text()
    (notice,) = re.findall(r"--signal=B:TERM@(\d+)", text)
    assert int(notice) > 60, "checkpoints take up to a minute"
    assert "RAY_AUTH_MODE=token" in text
    assert "#SBATCH --requeue" in text


def test_a_head_that_does_not_start_ends_the_slurm_job(tmp_path):
    """It was waited for until the job's time was over, on all of its nodes."""
    fakes = {
        "scontrol": "echo here",
        "srun": 'for word; do [ "$word" = hostname ] && { echo 127.0.0.1; exit 0; }; done; echo no port >&2; exit 1',
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "PATH": path}
    environment = {**os.environ, **job, "ISOFLOP_ROOT": str(tmp_path / "root")}
    done = subprocess.run(
        ["bash", str(SLURM)], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "the Ray head ended before it answered at 127.0.0.1:20007" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(["shellcheck", str(SLURM)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def slurm_answers():
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif(not slurm_answers(), reason="no Slurm here")
def test_sbatch_takes_it():
    words = ["sbatch", "--test-only", "--nodes=1", "--cpus-per-task=1", "--gpus-per-node=0", str(SLURM), "recipe=smoke"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=CODE, check=False)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr
