"""The pod that Kubernetes is asked for: what the user says of it, defaults where nothing is said, and no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.version import version
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from clip_operator.errors import RequestError
from clip_operator.operators import ImageCLIPEvaluatorOperator
from clip_operator.operators.execution.pods.pod import scoring_pod
from clip_operator.operators.execution.pods.settings import pod_settings
from clip_operator.request import EvaluationRequest, Requester, parse_request

pytestmark = pytest.mark.every_airflow

REQUEST = EvaluationRequest(
    input="s3://b/in.jsonl",
    output="s3://b/steps/x_step1.jsonl",
    requested_by=Requester(dag_id="Nightly Scores", run_id="scheduled__2026-01-01T00:00:00+00:00", task_id="score"),
)
IMAGE = {"image": "clip-operator:1", "namespace": "ml"}
SECCOMP = {"type": "RuntimeDefault"}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": SECCOMP,
}
UNSAID = {"runAsNonRoot": None, "seccompProfile": None}
LOCAL_PROFILE = {"type": "Localhost", "localhostProfile": "clip.json"}
ADDED = {"add": ["CAP_SYS_ADMIN"]}


def built(
    pod: Mapping[str, Any] | str, gpus: object = 0, request: EvaluationRequest = REQUEST, map_index: int = -1
) -> dict[str, Any]:
    """Return the pod's manifest, as it is sent to Kubernetes."""
    operator = scoring_pod(pod_settings(pod, gpus, deferrable=False), request, "score", timedelta(hours=1))
    asked = request.requested_by
    assert asked is not None
    ti = SimpleNamespace(dag_id=asked.dag_id, task_id=asked.task_id, map_index=map_index, try_number=2)
    context: Any = {"ti": ti, "run_id": asked.run_id, "dag": SimpleNamespace()}
    manifest = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(context, dry_run=True))
    return dict(manifest)


def container(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return dict(manifest["spec"]["containers"][0])


def test_a_pod_with_a_gpu_is_this_one() -> None:
    manifest = built(
        {
            **IMAGE,
            "name": "Clip Scores!",
            "random_name_suffix": False,
            "service_account_name": "clip",
            "env_vars": {"AWS_DEFAULT_REGION": "eu-central-1"},
            "secrets": [{"deploy_type": "env", "deploy_target": None, "secret": "hub-token"}],
            "node_selector": {"pool": "gpu"},
            "container_resources": {"limits": {"memory": "16Gi"}, "requests": {"cpu": 4}},
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "clip-models", "readOnly": True}}],
            "volume_mounts": [{"name": "models", "mountPath": "/models"}],
            "labels": {"team": "data"},
        },
        gpus=1,
    )
    command = container(manifest).pop("args")
    quietly = ["--quiet", "--ignore-gates", "--termination-log", "/dev/termination-log"]
    assert command[:-1] == ["evaluate", *quietly, "--request-json"]
    assert parse_request(command[-1]) == REQUEST.model_copy(update={"device": "cuda"})
    assert manifest == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "clip-scores",
            "namespace": "ml",
            "annotations": {},
            "labels": {
                "airflow_version": version,
                "app.kubernetes.io/managed-by": "airflow",
                "app.kubernetes.io/name": "clip-operator",
                "dag_id": "NightlyScores-ccd005984",
                "kubernetes_pod_operator": "True",
                "run_id": "scheduled__2026-01-01T0000000000-b36726f5d",
                "task_id": "score",
                "team": "data",
                "try_number": "2",
            },
        },
        "spec": {
            "affinity": {},
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "base",
                    "image": "clip-operator:1",
                    "command": ["python", "-m", "clip_operator"],
                    "args": command,
                    "env": [{"name": "AWS_DEFAULT_REGION", "value": "eu-central-1"}],
                    "envFrom": [{"secretRef": {"name": "hub-token"}}],
                    "ports": [],
                    "resources": {"limits": {"memory": "16Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "4"}},
                    "securityContext": RESTRICTED,
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "volumeMounts": [
                        {"name": "models", "mountPath": "/models"},
                        {"name": "clip-shm", "mountPath": "/dev/shm"},
                        {"name": "clip-cache", "mountPath": "/cache"},
                        {"name": "clip-tmp", "mountPath": "/tmp"},
                    ],
                }
            ],
            "hostNetwork": False,
            "imagePullSecrets": [],
            "initContainers": [],
            "nodeSelector": {"pool": "gpu"},
            "restartPolicy": "Never",
            "securityContext": {},
            "serviceAccountName": "clip",
            "terminationGracePeriodSeconds": 120,
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": "clip-models", "readOnly": True}},
                {"name": "clip-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                {"name": "clip-cache", "emptyDir": {}},
                {"name": "clip-tmp", "emptyDir": {}},
            ],
        },
    }


def test_a_device_and_a_toleration_of_the_users_own_stay_as_they_are_with_a_gpu() -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "a100", "effect": "NoExecute"}
    request = REQUEST.model_copy(update={"device": "cuda:0"})
    manifest = built({**IMAGE, "tolerations": [toleration]}, gpus=1, request=request)
    assert parse_request(container(manifest)["args"][-1]).device == "cuda:0"
    assert manifest["spec"]["tolerations"] == [toleration]


def test_waiting_and_logging_have_defaults_that_suit_large_images_and_quiet_logs() -> None:
    def waits(pod: Mapping[str, Any], deferrable: bool) -> tuple[Any, ...]:
        arguments = pod_settings(pod, 0, deferrable).arguments
        names = ("schedule_timeout_seconds", "startup_timeout_seconds", "logging_interval", "log_pod_spec_on_failure")
        return tuple(arguments[name] for name in names)

    assert waits({}, True) == (900, 900, 30, False)
    assert waits({}, False) == (900, 900, None, False)
    assert waits({"schedule_timeout_seconds": 1, "logging_interval": "5"}, True) == (1, 900, 5, False)


def test_what_a_template_leaves_empty_counts_as_not_set() -> None:
    fixed = {**IMAGE, "name": "x", "random_name_suffix": False}
    empty = {"service_account_name": "", "startup_timeout_seconds": "", "volumes": "", "labels": None}
    assert built({**fixed, **empty}) == built(fixed)
    for word in ("", "None"):
        assert built({**fixed, **dict.fromkeys(empty, word)}) == built(fixed)
    assert pod_settings(empty, "", "no") == pod_settings({}, 0, deferrable=False)


def test_a_dictionary_that_a_template_made_a_text_is_read_as_json_is() -> None:
    assert pod_settings(str(IMAGE), 0, False) == pod_settings(json.dumps(IMAGE), 0, False)


def test_without_a_gpu_nothing_is_said_of_one() -> None:
    manifest = built(IMAGE, gpus="")
    assert parse_request(container(manifest)["args"][-1]) == REQUEST
    assert "nvidia.com" not in json.dumps(manifest)


def test_the_users_word_and_his_templates_stand_before_a_default(tmp_path: Path) -> None:
    template = tmp_path / "pod.yaml"
    template.write_text(
        """
        apiVersion: v1
        kind: Pod
        metadata: {labels: {app.kubernetes.io/name: theirs}}
        spec:
          terminationGracePeriodSeconds: 600
          automountServiceAccountToken: true
          securityContext: {runAsUser: 7}
          containers:
          - name: base
            image: theirs:2
            command: [sh, -c, "their own command"]
            volumeMounts: [{name: fast, mountPath: /tmp/}]
            securityContext: {readOnlyRootFilesystem: false}
          - {name: sidecar, image: proxy:1}
          volumes: [{name: fast, emptyDir: {}}]
        """
    )
    manifest = built({"pod_template_file": str(template), "namespace": "ml"})
    spec = manifest["spec"]
    assert spec["terminationGracePeriodSeconds"] == 600
    assert spec["automountServiceAccountToken"] is True
    assert spec["securityContext"] == {"runAsUser": 7}
    assert [c["name"] for c in spec["containers"]] == ["base", "sidecar"]
    assert container(manifest)["image"] == "theirs:2"
    assert container(manifest)["command"] == ["python", "-m", "clip_operator"]
    assert container(manifest)["securityContext"] == {**RESTRICTED, "readOnlyRootFilesystem": False}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(manifest)["volumeMounts"]}
    assert mounts == {"/tmp/": "fast", "/dev/shm": "clip-shm", "/cache": "clip-cache"}
    assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "theirs"


# What the user says of the pod, what he says of the container, and in what the container's differs from RESTRICTED.
SECURITY: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}, {}),
    "a group for volumes": ({"fsGroup": 10001}, {}, {}),
    "a user": ({"runAsUser": 1000, "runAsGroup": 0}, {}, {}),
    "the same of the pod": ({"runAsNonRoot": True, "seccompProfile": SECCOMP}, {}, UNSAID),
    "root": ({"runAsUser": 0}, {}, {"runAsNonRoot": None}),
    "root may be": ({"runAsNonRoot": False}, {}, {"runAsNonRoot": None}),
    "a profile of the pod": ({"seccompProfile": {"type": "Unconfined"}}, {}, {"seccompProfile": None}),
    "a user of the container": ({}, {"runAsUser": 1000}, {"runAsUser": 1000}),
    "a root of the container": ({}, {"runAsUser": 0}, {"runAsUser": 0, "runAsNonRoot": None}),
    "a user over a root": ({"runAsUser": 0}, {"runAsUser": 1000}, {"runAsUser": 1000}),
    "a root over a user": ({"runAsUser": 1000}, {"runAsUser": 0}, {"runAsUser": 0, "runAsNonRoot": None}),
    "a root that may be": ({}, {"runAsNonRoot": False}, {"runAsNonRoot": False}),
    "to be written on": ({"fsGroup": 1}, {"readOnlyRootFilesystem": False}, {"readOnlyRootFilesystem": False}),
    "a profile": ({}, {"seccompProfile": LOCAL_PROFILE}, {"seccompProfile": LOCAL_PROFILE}),
    "an empty word": ({}, {"capabilities": {}}, {"capabilities": {}}),
    # Kubernetes refuses a ban on escalation beside these.
    "a capability": ({}, {"capabilities": ADDED}, {"capabilities": ADDED, "allowPrivilegeEscalation": None}),
    "all of them": ({}, {"privileged": True}, {"privileged": True, "allowPrivilegeEscalation": None}),
}


@pytest.mark.parametrize("case", SECURITY)
def test_the_scorers_container_is_restricted_field_by_field_and_no_other_one_is(case: str) -> None:
    of_pod, of_container, differs = SECURITY[case]
    others = [{"name": name, "image": "theirs:1"} for name in ("fetch", "proxy")]
    template = {"spec": {"containers": [{"name": "base"}, others[1]], "initContainers": [others[0]]}}
    contexts = {"security_context": of_pod, "container_security_context": of_container}
    manifest = built({**IMAGE, **contexts, "pod_template_dict": template})
    wanted = {**RESTRICTED, **differs}
    assert container(manifest)["securityContext"] == {name: of for name, of in wanted.items() if of is not None}
    assert manifest["spec"]["securityContext"] == of_pod
    assert [*manifest["spec"]["initContainers"], *manifest["spec"]["containers"][1:]] == others


# What the user says of the container's resources, and what is requested besides.
RESOURCES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {"cpu": "1", "memory": "2Gi"}),
    "both": ({"requests": {"cpu": "4", "memory": "8Gi"}}, {}),
    "a request": ({"requests": {"memory": "8Gi"}}, {"cpu": "1"}),
    "limits below": ({"limits": {"cpu": "500m", "memory": "1Gi"}}, {}),
    "a limit": ({"limits": {"memory": "16Gi"}}, {"cpu": "1"}),
    "one each": ({"limits": {"memory": "16Gi"}, "requests": {"cpu": "250m"}}, {}),
    "others": (
        {"limits": {"amd.com/gpu": "1"}, "requests": {"ephemeral-storage": "9Gi"}},
        {"cpu": "1", "memory": "2Gi"},
    ),
}


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("way", ["container_resources", "pod_template_dict", "full_pod_spec"])
@pytest.mark.parametrize("case", RESOURCES)
def test_what_is_neither_requested_nor_limited_is_requested(case: str, way: str, gpus: int) -> None:
    said, requested = RESOURCES[case]
    whole = {"spec": {"containers": [{"name": "base", "resources": said}]}}
    given = {way: said} if way == "container_resources" else {way: whole}
    resources = container(built({**IMAGE, **given}, gpus))["resources"]
    assert resources.get("requests", {}) == {**said.get("requests", {}), **requested}
    limits = {**said.get("limits", {}), **({"nvidia.com/gpu": "1"} if gpus else {})}
    assert resources.get("limits", {}) == limits


def test_what_is_said_of_the_whole_pods_resources_is_not_requested_for_the_container() -> None:
    whole = {"spec": {"containers": [{"name": "base"}], "resources": {"limits": {"memory": "1Gi"}}}}
    assert container(built({**IMAGE, "full_pod_spec": whole}))["resources"] == {"requests": {"cpu": "1"}}


@pytest.mark.parametrize("name", ["full_pod_spec", "pod_template_dict"])
def test_a_template_may_be_given_as_json_too(name: str) -> None:
    template = {"spec": {"priorityClassName": "low", "containers": [{"name": "base", "image": "theirs:2"}]}}
    manifest = built({"namespace": "ml", name: template})
    assert manifest["spec"]["priorityClassName"] == "low"
    assert container(manifest)["image"] == "theirs:2"


def test_a_mapped_task_instance_is_named_in_the_labels() -> None:
    assert built(IMAGE, map_index=4)["metadata"]["labels"]["map_index"] == "4"


def test_python_objects_and_json_make_the_same_pod() -> None:
    fixed = {**IMAGE, "name": "x", "random_name_suffix": False}
    objects = {
        **fixed,
        "tolerations": [k8s.V1Toleration(key="spot", operator="Exists")],
        "env_vars": [k8s.V1EnvVar(name="A", value="1")],
        "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="aws"))],
        "container_resources": k8s.V1ResourceRequirements(limits={"cpu": "2"}),
        "secrets": [Secret("env", "HF_TOKEN", "hub", "token")],
        "volumes": [k8s.V1Volume(name="v", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi"))],
        "volume_mounts": [k8s.V1VolumeMount(name="v", mount_path="/v")],
        "security_context": k8s.V1PodSecurityContext(fs_group=5),
        "startup_timeout_seconds": 77,
    }
    as_json = {
        **fixed,
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "env_vars": {"A": 1},
        "env_from": [{"secretRef": {"name": "aws"}}],
        "container_resources": {"limits": {"cpu": 2}},
        "secrets": [{"deploy_type": "env", "deploy_target": "HF_TOKEN", "secret": "hub", "key": "token"}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
        "volume_mounts": [{"name": "v", "mountPath": "/v"}],
        "security_context": {"fsGroup": 5},
        "startup_timeout_seconds": "77",
    }
    templated = {**as_json, "volumes": json.dumps(as_json["volumes"]), "env_vars": json.dumps({"A": "1"})}
    assert built(json.dumps(as_json)) == built(as_json) == built(templated) == built(objects)
    assert pod_settings(as_json, 0, False).arguments["startup_timeout_seconds"] == 77


@settings(deadline=None)
@given(st.text(alphabet="$()NAME \\\"'{}é\n\u2028", max_size=40))
def test_kubernetes_finds_no_variable_to_replace_in_a_request_and_the_request_arrives_whole(text: str) -> None:
    request = REQUEST.model_copy(update={"output_key": f"x{text}", "input_text_key": "$(HOME)"})
    arguments = container(built(IMAGE, request=request))["args"]
    assert not any("$" in argument for argument in arguments)
    assert parse_request(arguments[-1]) == request


REFUSED: dict[str, tuple[object, object, str]] = {
    "a typing error": (
        {**IMAGE, "service_acount_name": "x"},
        0,
        "does not know: 'service_acount_name'; did you mean 'service_account_name'",
    ),
    "nothing like it": ({**IMAGE, "zzz": 1}, 0, "does not know: 'zzz'$"),
    "the command": (
        {**IMAGE, "cmds": ["sh"]},
        0,
        "must not set 'cmds', which is the operator's own matter: the pod runs",
    ),
    "its arguments": ({**IMAGE, "arguments": ["-h"]}, 0, "must not set 'arguments'"),
    "a sidecar": ({**IMAGE, "do_xcom_push": True}, 0, "must not set 'do_xcom_push'.* without a sidecar"),
    "a skip": ({**IMAGE, "skip_on_exit_code": 1}, 0, "must not set 'skip_on_exit_code'"),
    "the wrong deferrable": ({**IMAGE, "deferrable": True}, 0, "set the operator's own deferrable="),
    "a task's argument": (
        {**IMAGE, "retries": 3},
        0,
        "must not set 'retries': that is an argument of the operator itself",
    ),
    "no image": ({"namespace": "ml"}, 0, "pod needs an image"),
    "not a dictionary": (["image"], 0, "pod must be a dictionary of KubernetesPodOperator's arguments, not list"),
    "not JSON": ("{'image': x}", 0, "pod is a string that is not JSON"),
    "part of it not JSON": ({**IMAGE, "volumes": "none"}, 0, r"pod\['volumes'\] is a string that is not JSON"),
    "a word for a number": (
        {**IMAGE, "startup_timeout_seconds": "soon"},
        0,
        r"pod\['startup_timeout_seconds'\]: .*'soon'",
    ),
    "python names in JSON": (
        {**IMAGE, "volumes": [{"name": "v", "empty_dir": {}}]},
        0,
        r"pod\['volumes'\] has a field 'empty_dir' that Kubernetes does not know.*mountPath",
    ),
    "a list for a word": ({**IMAGE, "volumes": [{"emptyDir": {}}]}, 0, r"pod\['volumes'\] is malformed: .*name"),
    "a structure in a variable": ({**IMAGE, "env_vars": {"A": {}}}, 0, "env_vars.*A must be a string, not dict"),
    "nothing in a variable": ({**IMAGE, "env_vars": {"A": None}}, 0, "env_vars.*A must be a string, not NoneType"),
    "a number for variables": ({**IMAGE, "env_vars": 3}, 0, "pod: Expected dict or list"),
    "a number for volumes": ({**IMAGE, "volumes": 3}, 0, "pod: 'int' object is not iterable"),
    "a list for labels": ({**IMAGE, "labels": ["a"]}, 0, "pod: 'list' object has no attribute"),
    "a template that cannot be read": (
        {"pod_template_file": "/proc/self/mem", "namespace": "ml"},
        0,
        "cannot be read: .*Errno",
    ),
    "an unknown ending": ({**IMAGE, "on_finish_action": "explode"}, 0, "explode"),
    "a template that is not there": (
        {"pod_template_file": "/no/such.yaml", "namespace": "ml"},
        0,
        "there is no file /no/such.yaml on this worker",
    ),
    "a number for a name": ({**IMAGE, "name": 3}, 0, "pod: .*int"),
    "a number for secrets": ({**IMAGE, "secrets": 3}, 0, r"pod\['secrets'\] must be a list, not int"),
    "a number for what the trigger keeps": ({**IMAGE, "trigger_kwargs": 3}, 0, "pod: .*int"),
    "a number for resources": ({**IMAGE, "container_resources": 5}, 1, "pod: .*int"),
    "a number for a template": ({"pod_template_dict": 3}, 0, r"pod\['pod_template_dict'\] holds no pod but int"),
    "a malformed secret": ({**IMAGE, "secrets": [{"name": "aws"}]}, 0, r"pod\['secrets'\]: .*name"),
    "two gpus": (IMAGE, 2, "gpus must be 0 or 1, not 2"),
    "a word for gpus": (IMAGE, "many", "gpus: .*'many'"),
    "two voices on gpus": (
        {**IMAGE, "container_resources": {"limits": {"nvidia.com/gpu": 4}}},
        1,
        "gpus=1, but pod's container_resources ask for 4",
    ),
    "a secret in plain sight": (
        {**IMAGE, "env_vars": {"AWS_SECRET_ACCESS_KEY": "hush"}},
        0,
        "AWS_SECRET_ACCESS_KEY would stand in the pod's specification",
    ),
    "a token in plain sight": (
        {**IMAGE, "env_vars": [{"name": "HF_TOKEN", "value": "hush"}]},
        0,
        "HF_TOKEN would stand in the pod's specification",
    ),
    "a secret in an init container": (
        {
            **IMAGE,
            "init_containers": [{"name": "i", "image": "i", "env": [{"name": "DB_PASSWORD", "value": "hush"}]}],
        },
        0,
        "DB_PASSWORD would stand",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_the_pod_is_refused_by_name(case: str) -> None:
    pod, gpus, words = REFUSED[case]
    with pytest.raises(RequestError, match=words) as refusal:
        built(pod, gpus)  # type: ignore[arg-type] # what a user may give, whatever types say
    assert "hush" not in str(refusal.value)


def test_a_template_that_makes_no_pod_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "pod.yaml"
    template.write_text("spec: {containers: [{image: nameless}]}")
    with pytest.raises(RequestError, match="is malformed: Invalid value for `name`"):
        built({"pod_template_file": str(template), "namespace": "ml"})


@pytest.mark.parametrize(
    "name",
    [
        *(
            "OPENAI_API_KEY",
            "apikey",
            "my_token",
            "PASSWD",
            "SSH_PRIVATE_KEY",
            "CLIENT_SECRET",
            "PGPASSWORD",
            "dbPassword",
        ),
        *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY", "AIRFLOW_CONN_AWS_DEFAULT", "MYSQL_PWD"),
        *("DB_PASS", "DB_PASSWORD_2", "GCP_CREDENTIALS", "SENTRY_DSN", "AZURE_STORAGE_SAS", "AWS_SESSION_TOKEN"),
        *("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "HF_TOKEN", "API_KEY_2", "S3_KEY"),
    ],
)
def test_a_variable_that_sounds_secret_is_refused_with_a_value(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} would stand") as refusal:
        built({**IMAGE, "env_vars": {name: "hush"}})
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "x") for name in ("TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "MONKEY", "KEYSTONE")),
        *((name, "x") for name in ("OUTPUT_KEY", "INPUT_IMAGE_KEY", "INPUT_TEXT_KEY", "ERROR_KEY", "SSH_PUBLIC_KEY")),
        ("AWS_ACCESS_KEY_ID", "AKIAABCDEFGHIJKLMNOP"),  # opens nothing without its key
        ("KEYCLOAK_URL", "https://id.example.org/realms?tab=1"),
        ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"),
        ("ALLOW_EMPTY_PASSWORD", "yes"),
        ("PWD", "/work"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/var/secrets/key.json"),
        ("TLS_KEY", "/certs/tls.key"),
        ("PGPASSWORD", "$(FROM_A_SECRET)"),
        ("DATABASE_URL", "postgres://user:$(FROM_A_SECRET)@host/db"),
        ("DATABASE_URL", "postgres://user@host:5432/db"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("NO_PROXY", "localhost,10.0.0.0/8,[::1]"),
        ("MASTER", "k8s://https://host:6443"),
        ("BROKERS", "PLAINTEXT://a:9092,SASL_SSL://b:9092"),
        ("S3_KEYS", "s3://bucket/token=1/user@example.com"),
    ],
)
def test_a_variable_that_only_sounds_secret_may_be_set(name: str, value: str) -> None:
    [variable] = container(built({**IMAGE, "env_vars": {name: value}}))["env"]
    assert variable == {"name": name, "value": value}


@pytest.mark.parametrize(
    "value",
    [
        "postgres://user:hush@host/db",
        "redis://:hush@host:6379",
        "jdbc:postgresql://host/db?user=u&password=hush",
        "https://account.blob.core.windows.net/c?sv=2024&sig=hush",
        "AccountName=a;AccountKey=hush==;EndpointSuffix=x",
        "aws_access_key_id=AKIAABCDEFGHIJKLMNOP hush",
        "-Djavax.net.ssl.keyStorePassword=hush",
        '{"password": "hush"}',
        "-----BEGIN RSA PRIVATE KEY-----\nhush",
        "eyJhbGciOiJIUzI1NiJ9.eyJodXNoIjoiaHVzaCJ9.hush",
    ],
)
@pytest.mark.parametrize("place", ["variable", "annotation", "sidecar", "init container", "whole pod", "volume"])
def test_what_looks_like_a_secret_is_refused_wherever_it_stands(place: str, value: str) -> None:
    other = {"name": "other", "image": "x", "args": ["--of", value]}
    base = {"name": "base", "image": "x"}
    driver = {"driver": "x", "volumeAttributes": {"of": value}}
    places: dict[str, dict[str, Any]] = {
        "variable": {"env_vars": {"HARMLESS": value}},
        "annotation": {"annotations": {"example.org/of": value}},
        "sidecar": {"pod_template_dict": {"spec": {"containers": [base, other]}}},
        "init container": {"init_containers": [other]},
        "whole pod": {"full_pod_spec": {"spec": {"containers": [base, other]}}},
        "volume": {"volumes": [{"name": "v", "csi": driver}]},
    }
    with pytest.raises(RequestError, match="holds what looks like a secret") as refusal:
        built({**IMAGE, **places[place]})
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    "pod",
    [
        {"annotations": {"example.org/db-password": "hush"}},
        {"labels": {"api-key": "hush"}},
        {"annotations": {"vault.hashicorp.com/agent-inject-template-s3": 'export API_KEY="hush"'}},
        {"annotations": {"checksum/secret": "hush"}},
        {"env_vars": {"PIP_EXTRA_INDEX_URL": "https://hush:$(PYPI)x@host/simple"}},
        {"init_containers": [{"name": "i", "image": "x", "command": ["sh", "-c", "PGPASSWORD=hush psql"]}]},
        {"init_containers": [{"name": "i", "image": "x", "args": ["--password", "hush"]}]},
        {"init_containers": [{"name": "i", "image": "x", "args": ["--api-key=hush"]}]},
    ],
)
def test_what_is_called_like_a_secret_is_refused_elsewhere_too(pod: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="holds what looks like a secret") as refusal:
        built({**IMAGE, **pod})
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    "pod",
    [
        {"annotations": {"vault.example.org/agent-inject-secret-db-password": "database/creds/db"}},
        {"annotations": {"sidecar.example.org/use-token": "true", "owner": "user@example.org"}},
        {"labels": {"team": "data", "app.kubernetes.io/part-of": "tokens"}},
        {"init_containers": [{"name": "i", "image": "x", "args": ["--password-file", "/run/pw", "--sort-key=id"]}]},
        {"init_containers": [{"name": "i", "image": "x", "command": ["sh", "-c", "export TOKEN=$(cat /t); f $TOKEN"]}]},
        {"init_containers": [{"name": "i", "image": "x", "args": ["copy", "docker://nginx:1.25", "s3://b/a@b:c"]}]},
        {"volumes": [{"name": "v", "secret": {"secretName": "db-password"}}]},
        {"annotations": {"vault.hashicorp.com/agent-inject-file-token": "token"}},
        {"annotations": {"vault.hashicorp.com/agent-inject-template-s3": 'export API_KEY="{{ .Data.data.key }}"'}},
        {"annotations": {"checksum/s3-credentials": "ab" * 32}},
        {"annotations": {"ad.example.org/base.checks": '{"password":"%%env_PW%%"}'}},
        {"env_vars": {"PIP_EXTRA_INDEX_URL": "https://__token__:$(PYPI)@host/simple", "MAX_PASS": "2"}},
        {"env_vars": {"SCORE_KEY": "score", "LABEL_KEY": "label", "KMS_KEY": "alias/clip"}},
        {"init_containers": [{"name": "i", "image": "x", "args": ['--token="${HF_TOKEN:-}"']}]},
    ],
)
def test_what_names_a_secret_without_holding_it_may_stand(pod: dict[str, Any]) -> None:
    built({**IMAGE, **pod})


def test_a_line_of_a_pods_log_folds_none_of_the_tasks_away() -> None:
    shown = pod_settings(IMAGE, 0, deferrable=False).arguments["log_formatter"]
    assert shown("base", "WARNING: \x1b[2K::endgroup::\n") == r"\x1b[2K\x3a:endgroup::"


def test_a_secret_may_be_named_as_long_as_its_value_is_not() -> None:
    manifest = built({**IMAGE, "secrets": [Secret("env", "AWS_SECRET_ACCESS_KEY", "aws", "secret")]})
    reference = {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "aws", "key": "secret"}}}
    assert container(manifest)["env"] == [reference]


def test_the_largest_request_that_fits_an_argument_is_sent_and_one_byte_more_is_refused() -> None:
    room = (128 << 10) - 1 - len(REQUEST.model_dump_json())
    fits = REQUEST.model_copy(update={"image_hosts": ("a" * (room - 2),)})
    assert len(container(built(IMAGE, request=fits))["args"][-1]) == (128 << 10) - 1
    with pytest.raises(RequestError, match=r"takes 131,073 bytes.*of 131,072 at most; most of it is image_hosts"):
        built(IMAGE, request=REQUEST.model_copy(update={"image_hosts": ("a" * (room - 1),)}))


def test_templates_are_rendered_in_kubernetes_objects_too() -> None:
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="{{ claim }}")
    pod = {"image": "clip:{{ version }}", "volumes": [k8s.V1Volume(name="v", persistent_volume_claim=claim)]}
    operator = ImageCLIPEvaluatorOperator(
        task_id="t", step=1, cache_path="s3://b", execution_mode="kubernetes", pod=pod
    )
    context: Any = {"version": "9", "claim": "models"}
    rendered = operator.render_template(pod, context, operator.get_template_env())
    assert rendered["image"] == "clip:9"
    assert rendered["volumes"][0].persistent_volume_claim.claim_name == "models"
    assert claim.claim_name == "{{ claim }}"  # the DAG's own object is as it was


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec: {containers: [", "cannot be read: it is not YAML in line 1, column 21"),
        ("- a\n- b\n", "holds no pod but list"),
        ("spec: {containers: [{name: base, image: x, volumemounts: []}]}", "has a field 'volumemounts'"),
    ],
)
def test_a_template_file_is_checked_as_the_arguments_are(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(text)
    with pytest.raises(RequestError, match=rf"pod\['pod_template_file'\].* {words}"):
        built({"pod_template_file": str(tmp_path / "pod.yaml"), "namespace": "ml"})
