"""What a pod gets where neither the user nor his template says anything: what suits a scorer."""

from __future__ import annotations

from kubernetes.client import models as k8s

from clip_operator.errors import RequestError

_GPU = "nvidia.com/gpu"
# From SIGTERM to SIGKILL: time to finish a batch and to write down what is done.
_GRACE_SECONDS = 120
# What a scorer writes to: shared memory for worker processes, whose default of 64 MiB is too small for images;
# checkpoints; and the step on its way in and out. The root file system is read-only.
_SCRATCH = {"/dev/shm": "clip-shm", "/cache": "clip-cache", "/tmp": "clip-tmp"}  # noqa: S108 - the pod's own
_SHARED_MEMORY = "1Gi"
# A pod that requests nothing is placed on full nodes, and the first that a node short of memory ends.
_REQUESTS = {"cpu": "1", "memory": "2Gi"}


def add_defaults(pod: k8s.V1Pod, container: k8s.V1Container, gpus: int) -> None:
    """Add to a pod what a scorer needs and nobody has said.

    :param container: that of the pod's containers that scores.
    :param gpus: how many NVIDIA GPUs it gets.
    :raises RequestError: the container asks for another number of GPUs.
    """
    _add_labels(pod)
    _add_gpu(pod, container, gpus)
    _add_requests(pod, container)
    _add_scratch(pod, container)
    _add_security(pod, container)
    if pod.spec.termination_grace_period_seconds is None:
        pod.spec.termination_grace_period_seconds = _GRACE_SECONDS


def _add_labels(pod: k8s.V1Pod) -> None:
    ours = {"app.kubernetes.io/name": "clip-operator", "app.kubernetes.io/managed-by": "airflow"}
    pod.metadata.labels = {**ours, **(pod.metadata.labels or {})}


def _add_gpu(pod: k8s.V1Pod, container: k8s.V1Container, gpus: int) -> None:
    if not gpus:
        return
    resources = container.resources = container.resources or k8s.V1ResourceRequirements()
    asked = (resources.limits or {}).get(_GPU)
    if asked is not None and str(asked) != str(gpus):
        raise RequestError(f"gpus={gpus}, but pod's container_resources ask for {asked} {_GPU}")
    resources.limits = {**(resources.limits or {}), _GPU: str(gpus)}
    tolerations = pod.spec.tolerations = pod.spec.tolerations or []
    if not any(toleration.key == _GPU for toleration in tolerations):
        # Nodes with GPUs are commonly tainted, so that only pods that use one are placed there.
        tolerations.append(k8s.V1Toleration(key=_GPU, operator="Exists", effect="NoSchedule"))


def _add_requests(pod: k8s.V1Pod, container: k8s.V1Container) -> None:
    """Request what a scorer takes of each resource that has neither a request nor a limit, here or of the whole pod."""
    resources = container.resources = container.resources or k8s.V1ResourceRequirements()
    given = [part for of in (resources, pod.spec.resources) if of for part in (of.requests, of.limits) if part]
    missing = {name: size for name, size in _REQUESTS.items() if not any(name in part for part in given)}
    if missing:
        resources.requests = {**(resources.requests or {}), **missing}


def _add_scratch(pod: k8s.V1Pod, container: k8s.V1Container) -> None:
    mounts = container.volume_mounts = container.volume_mounts or []
    volumes = pod.spec.volumes = pod.spec.volumes or []
    taken = {mount.mount_path.rstrip("/") for mount in mounts}
    for path, name in _SCRATCH.items():
        if path not in taken:
            in_memory = {"medium": "Memory", "size_limit": _SHARED_MEMORY} if name == "clip-shm" else {}
            empty = k8s.V1EmptyDirVolumeSource(**in_memory)
            volumes.append(k8s.V1Volume(name=name, empty_dir=empty))
            mounts.append(k8s.V1VolumeMount(name=name, mount_path=path))


def _add_security(pod: k8s.V1Pod, container: k8s.V1Container) -> None:
    """Ask for no more than the scorer needs, which is what the "restricted" pod security standard admits.

    All of it stands on the scorer's container: what stands on the pod holds for containers of others, too, which may
    have to run as root. What is said there is said of the scorer, and stands before a default.
    """
    container.security_context = container.security_context or k8s.V1SecurityContext()
    own, shared = container.security_context, pod.spec.security_context or k8s.V1PodSecurityContext()
    user = shared.run_as_user if own.run_as_user is None else own.run_as_user
    more = own.privileged or (own.capabilities and own.capabilities.add)  # which goes with no ban on escalation
    defaults = {
        "allow_privilege_escalation": None if more else False,
        "capabilities": k8s.V1Capabilities(drop=["ALL"]),
        "read_only_root_filesystem": True,
        "run_as_non_root": None if user == 0 or shared.run_as_non_root is not None else True,
        "seccomp_profile": None if shared.seccomp_profile else k8s.V1SeccompProfile(type="RuntimeDefault"),
    }
    for name, default in defaults.items():
        if getattr(own, name) is None:
            setattr(own, name, default)
    if pod.spec.automount_service_account_token is None:
        # The scorer never speaks to Kubernetes. Cloud identities (IRSA, workload identity) bring tokens of their own.
        pod.spec.automount_service_account_token = False
