"""GKE: the JobSets are what they should be, and kubectl is called as it should be."""

import base64
import json

import pytest
import yaml

from vclip_jax.devices.processes import OUT_OF_MEMORY

TPU = (
    "--image=reg.io/p/vclip:1",
    "--accelerator=tpu-v5-lite-podslice",
    "--topology=4x4",
    "--hosts=4",
    "--config=configs/visionclip.py",
    "--workdir=/mnt/b/w",
)
GPU = (
    "--platform=gpu",
    "--image=reg.io/p/vclip:1",
    "--accelerator=nvidia-h100-80gb",
    "--hosts=2",
    "--chips=8",
    "--config=configs/visionclip.py",
    "--workdir=/nfs/w",
)
KUBECTL = ["kubectl", "--namespace=default"]
CONDITIONS = '{.metadata.name} {.status.conditions[?(@.status=="True")].type}'
GET = [*KUBECTL, "get", "jobset", "vclip", "--ignore-not-found", f"--output=jsonpath={CONDITIONS}"]
APPLY = [*KUBECTL, "apply", "--filename=-"]
DELETE = [*KUBECTL, "delete", "jobset", "vclip", "--ignore-not-found", "--cascade=foreground"]
APPLY_SECRET = [*KUBECTL, "apply", "--server-side", "--force-conflicts", "--filename=-"]
DELETE_SECRET = [*KUBECTL, "delete", "secret", "vclip-env", "--ignore-not-found"]


def applied(launch):
    """The JobSet that was applied, its Job and its Pod."""
    jobset = yaml.safe_load(launch.stdin(launch.calls.index(APPLY)))
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    [container] = pod["containers"]
    assert container["command"] == ["python", "-m", "vclip_jax.main"]
    assert {v["name"] for v in pod.get("volumes", [])} == {
        mount["name"] for mount in container.get("volumeMounts", [])
    }
    return jobset, replicated, job, pod, container


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_templates_are_yaml(launch, platform):
    assert (
        yaml.safe_load((launch.root / f"launch/gke-{platform}.yaml").read_text())["kind"]
        == "JobSet"
    )


def test_a_tpu_slice(launch):
    assert launch("gke.sh", "run", *TPU, "--config.seed=1").code == 0
    assert launch.calls == [GET, APPLY]
    jobset, replicated, job, pod, container = applied(launch)
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 20
    assert replicated["replicas"] == 1
    assert job["parallelism"] == 4
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["args"] == [
        "--config",
        "configs/visionclip.py",
        "--workdir",
        "/mnt/b/w",
        "--config.seed=1",
        "--distributed",
        "--preempted_exit_code=75",
    ]
    assert container["env"] == []
    assert "envFrom" not in container
    assert not {"hostNetwork", "serviceAccountName", "tolerations"} & set(pod)
    assert pod["volumes"] == [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
    assert container["volumeMounts"] == [{"name": "shared-memory", "mountPath": "/dev/shm"}]


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_too_little_memory_ends_the_training_and_is_not_started_again(launch, platform):
    jobset = yaml.safe_load((launch.root / f"launch/gke-{platform}.yaml").read_text())
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    [container] = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [OUT_OF_MEMORY],
    }


def test_several_spot_slices_with_a_bucket(launch):
    launch(
        "gke.sh",
        "run",
        *TPU,
        "--slices=2",
        "--spot",
        "--bucket=my-bucket",
        "--env=A=1",
        "--service-account=trainer",
        "--max-restarts=3",
    )
    jobset, replicated, job, pod, container = applied(launch)
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert replicated["replicas"] == 2
    assert pod["hostNetwork"]
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"] == [{"key": "cloud.google.com/gke-spot", "operator": "Exists"}]
    assert pod["volumes"][1]["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    assert job["template"]["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    assert container["env"] == [{"name": "A", "value": "1"}]


def test_gpu_nodes_find_each_other(launch):
    assert launch("gke.sh", "run", *GPU).code == 0
    jobset, replicated, job, _, container = applied(launch)
    first = f"{jobset['metadata']['name']}-{replicated['name']}-0-0.{jobset['metadata']['name']}"
    assert container["args"][-3:] == [
        f"--coordinator={first}:8476",
        "--num_processes=2",
        "--process_id=$(PROCESS_ID)",
    ]
    [process_id] = container["env"]
    assert process_id["name"] == "PROCESS_ID"
    assert "job-completion-index" in process_id["valueFrom"]["fieldRef"]["fieldPath"]
    assert job["parallelism"] == 2
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_odd_words_reach_the_training_as_they_are(launch):
    odd = """a "b" \\ ${name} $(PROCESS_ID) {x: [1]} # only: spot"""
    launch("gke.sh", "run", *TPU[:-1], "--workdir", odd, "--env", f"A={odd}")
    *_, container = applied(launch)
    escaped = odd.replace("$(", "$$(")  # Kubernetes turns $$( into $(
    assert container["args"][3] == escaped
    assert container["env"][0]["value"] == escaped


@pytest.mark.parametrize("flags", [TPU, GPU], ids=["tpu", "gpu"])
def test_secrets_become_a_secret(launch, flags):
    file = launch.root.parent / "secrets"
    file.write_text('WANDB_API_KEY=it\'s "$(odd)" ${name} \\\nEMPTY=\nLONG=' + "é" * 200)
    file.chmod(0o600)
    assert launch("gke.sh", "run", *flags, "--env-file", file, "--env=A=1").code == 0
    assert launch.calls == [GET, APPLY_SECRET, APPLY]
    secret = yaml.safe_load(launch.stdin(1))
    assert (secret["kind"], secret["metadata"]) == ("Secret", {"name": "vclip-env"})
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert values == {"WANDB_API_KEY": 'it\'s "$(odd)" ${name} \\', "EMPTY": "", "LONG": "é" * 200}
    *_, container = applied(launch)
    assert container["envFrom"] == [{"secretRef": {"name": "vclip-env"}}]
    assert {"name": "A", "value": "1"} in container["env"]
    assert b"WANDB" not in launch.stdin(2)

    launch.forget()
    out = launch("gke.sh", "run", *flags, "--env-file", file, "--dry-run").out
    assert 'WANDB_API_KEY: "..."' in out
    assert "odd" not in out
    assert base64.b64encode(b"it's").decode()[:5] not in out
    launch.answer({"server-side": ("", "Forbidden\n", 1)})
    assert "write Secrets" in launch("gke.sh", "run", *flags, "--env-file", file).error
    launch.answer({"delete secret": ("", "Forbidden\n", 1)})
    deleted = launch("gke.sh", "delete")
    assert deleted.code == 0
    assert "delete the Secret vclip-env by hand" in deleted.err


def test_run_and_resume_are_idempotent(launch):
    launch.answer({" get ": "vclip StartupPolicyCompleted"})
    for command in ("run", "resume"):
        launch.forget()
        assert launch("gke.sh", command, *TPU).code == 0
        assert launch.calls == [GET]
    for condition in ("Failed", "Completed"):
        launch.answer({" get ": f"vclip {condition}"})
        launch.forget()
        assert launch("gke.sh", "run", *TPU).code == 0
        assert launch.calls == [GET]
        launch.forget()
        assert launch("gke.sh", "resume", *TPU).code == 0
        assert launch.calls == [GET, DELETE, APPLY]
    launch.answer({})
    launch.forget()
    assert launch("gke.sh", "resume", *TPU).code == 0
    assert launch.calls == [GET, APPLY]


def test_create_builds_the_working_tree(launch):
    assert launch("gke.sh", "create", "--image=r/v:1").code == 0
    assert launch.calls == [
        [
            "docker",
            "build",
            "--tag=r/v:1",
            "--file=launch/Dockerfile",
            "--build-arg=EXTRA=tpu",
            "-",
        ],
        ["docker", "push", "r/v:1"],
    ]
    assert launch.stdin(0)[:2] == b"\x1f\x8b"
    launch.answer({"docker push": ("", "denied\n", 1)})
    assert "configure-docker" in launch("gke.sh", "create", "--image=r/v:1").error


def test_status_logs_delete(launch):
    launch.answer({" get jobset": "vclip ", "get pods": "pod-0 Running\n"})
    assert launch("gke.sh", "status", "--context=c").out == "training: running\npod-0 Running\n"
    assert launch.calls[1] == [
        "kubectl",
        "--context=c",
        "--namespace=default",
        "get",
        "pods",
        "--selector=jobset.sigs.k8s.io/jobset-name=vclip",
        "--output=wide",
    ]
    launch.forget()
    launch("gke.sh", "logs", "--lines=3", "--follow")
    launch("gke.sh", "delete")
    assert launch.calls == [
        [
            *KUBECTL,
            "logs",
            "--tail=3",
            "--selector=jobset.sigs.k8s.io/jobset-name=vclip,"
            "jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0",
            "--follow",
        ],
        DELETE,
        DELETE_SECRET,
    ]
    launch.answer({})
    assert launch("gke.sh", "status").out == "training: ABSENT\n"


def test_errors_say_what_to_do(launch):
    assert "16 chips, not --hosts 2 x --chips 4" in launch("gke.sh", "run", *TPU, "--hosts=2").error
    assert "--hosts" in launch("gke.sh", "run", *GPU, "--slices=2").error
    assert "needs --bucket" in launch("gke.sh", "run", *TPU, "--workdir=/bucket/w").error
    assert "tpu or gpu" in launch("gke.sh", "run", *GPU, "--platform=cpu").error
    assert not launch.calls
    launch.answer({" get ": ("", "Unable to connect to the server\n", 1)})
    assert "Unable to connect to the server: check --context" in launch("gke.sh", "run", *TPU).error
    launch.answer({"apply": ("", "error from server\n", 1)})
    assert "kubectl get nodes" in launch("gke.sh", "run", *TPU).error


def test_a_dry_run_shows_the_manifest(launch):
    launch("gke.sh", "run", *TPU)
    out = launch("gke.sh", "run", *TPU, "--dry-run").out
    assert yaml.safe_load("\n".join(out.splitlines()[1:-1])) == applied(launch)[0]
    assert json.dumps("reg.io/p/vclip:1") in out
