"""An administrator's limits in Airflow's configuration, section ``[clip_operator]``, which no parameter can widen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from airflow.providers.common.compat.sdk import conf

from clip_operator.errors import RequestError
from clip_operator.storage import display, join

if TYPE_CHECKING:
    from clip_operator.operators.places import Places
    from clip_operator.request import EvaluationRequest

SECTION = "clip_operator"

NOTHING = "none"
"""What stands in the configuration for an option that allows nothing."""

ENVIRONMENT = "environment"
"""What stands there for the worker's own credentials, which are used without a connection."""

# Arguments of a pod that choose nothing but what other options limit, or how it is waited for.
_HARMLESS_ARGUMENTS = frozenset(
    {
        "active_deadline_seconds",
        "container_name_log_prefix_enabled",
        "container_resources",
        "durable",
        "env_from",
        "get_logs",
        "image",
        "image_pull_policy",
        "image_pull_secrets",
        "is_delete_operator_pod",
        "log_events_on_failure",
        "log_events_on_startup",
        "log_pod_spec_on_failure",
        "logging_interval",
        "name",
        "namespace",
        "on_finish_action",
        "on_kill_action",
        "poll_interval",
        "random_name_suffix",
        "reattach_on_restart",
        "schedule_timeout_seconds",
        "secrets",
        "service_account_name",
        "startup_check_interval_seconds",
        "startup_timeout_seconds",
        "termination_grace_period",
    }
)


@dataclass(frozen=True)
class Limits:
    """What a task may be told to read, write and run, whoever tells it. Each is a list of what is allowed; None is no
    limit, an empty one allows nothing.

    :param allowed_inputs: places that data sets and images may be in.
    :param allowed_outputs: places that steps, all that stands beside them, embeddings and score stores may be in.
    :param allowed_models: hub ids, owners at the hub, places in stores, folders, ``builtin://``.
    :param allowed_image_hosts: as the operator's ``image_hosts``.
    :param allowed_connections: ids for ``aws_conn_id``; ``environment`` for none.
    :param allowed_pythons: interpreters, or folders of such.
    :param allowed_pod_images: images with a tag or digest; without one for any; ``registry/team/`` for all below.
    :param allowed_namespaces: of pods.
    :param allowed_service_accounts: of pods.
    :param allowed_secrets: Secrets and ConfigMaps that a pod may name.
    :param allowed_pod_arguments: arguments of ``pod``, beside the harmless ones.
    """

    allowed_inputs: tuple[str, ...] | None = None
    allowed_outputs: tuple[str, ...] | None = None
    allowed_models: tuple[str, ...] | None = None
    allowed_image_hosts: tuple[str, ...] | None = None
    allowed_connections: tuple[str, ...] | None = None
    allowed_pythons: tuple[str, ...] | None = None
    allowed_pod_images: tuple[str, ...] | None = None
    allowed_namespaces: tuple[str, ...] | None = None
    allowed_service_accounts: tuple[str, ...] | None = None
    allowed_secrets: tuple[str, ...] | None = None
    allowed_pod_arguments: tuple[str, ...] | None = None

    @classmethod
    def configured(cls) -> Self:
        """Return what the configuration of this worker says.

        :raises RequestError: an option is there and empty, which might mean either.
        """
        return cls(**{field.name: _entries(field.name) for field in fields(cls)})

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Check what is used before there is a request, and what no request holds.

        :param parameters: the operator's, as templating left them.
        :raises RequestError: one is outside the limits; the message names it, its value and the option.
        """
        if first := parameters["first_entry_file_name"]:
            self._check_readable("first_entry_file_name", str(first))
        if folder := parameters["cache_path"]:
            # The step's number is the one part of its name that is not known yet, and is a number.
            name = f"{parameters['file_name_prefix']}_step1.{parameters['cache_type']}"
            self._check_writable("cache_path", str(folder))
            self._check_writable("cache_path, file_name_prefix and cache_type", join(str(folder), name))
        if plan := parameters["plan"]:
            self._check_writable("plan", str(plan))
        self.check_named("allowed_connections", "aws_conn_id", parameters["aws_conn_id"] or ENVIRONMENT)
        if parameters["python"] and parameters["execution_mode"] != "kubernetes":
            self._check_python(str(parameters["python"]))

    def bounded(self, request: EvaluationRequest) -> EvaluationRequest:
        """Return the request with the limits on its images in it, having checked all that it names.

        :raises RequestError: as :meth:`check_parameters`.
        """
        self._check_readable("input", request.input)
        self._check_local_files(request.input)
        self._check_image_root(request)
        for name in ("output", "filtered_output", "rejected_output"):
            if (uri := getattr(request, name)) is not None:
                self._check_writable(name, uri)
        for name, uri in (("reuse", request.reuse), ("embeddings_path", request.embeddings_path)):
            if uri is not None:
                self._check_writable(name, uri)
        self._check_model(request.model)
        self._check_image_hosts(request.image_hosts)
        return self._with_image_prefixes(request)

    def check_named(self, option: str, what: str, name: str) -> None:
        """Check one of several names against those that an option lists.

        :raises RequestError: the option is set, and does not have it.
        """
        allowed: tuple[str, ...] | None = getattr(self, option)
        if allowed is not None and name not in allowed:
            raise outside(option, what, name)

    def check_pod_arguments(self, names: Iterable[str]) -> None:
        """Check which arguments are given for a pod, before any is looked at: they may name files of the worker.

        :raises RequestError: one may not be given at all.
        """
        if not self.hold_pods:
            return
        for name in names:
            if name not in _HARMLESS_ARGUMENTS and name not in (self.allowed_pod_arguments or ()):
                raise outside("allowed_pod_arguments", "pod", name)

    @property
    def hold_pods(self) -> bool:
        """Whether any limit is on pods, which then may not be built so as to get round it."""
        limits = (self.allowed_pod_images, self.allowed_namespaces, self.allowed_service_accounts)
        return any(limit is not None for limit in (*limits, self.allowed_secrets, self.allowed_pod_arguments))

    def _check_readable(self, name: str, uri: str) -> None:
        from clip_operator.operators.places import place_of

        if self._readable is not None and not self._readable.hold(place_of(uri)):
            raise outside("allowed_inputs", name, uri)

    def _check_local_files(self, uri: str) -> None:
        """Check what a local folder or pattern stands for: a file in it may be a link."""
        from clip_operator.operators.places import files_of

        for file in () if self._readable is None else files_of(uri):
            self._check_readable("input", file)

    def _check_image_root(self, request: EvaluationRequest) -> None:
        from clip_operator.inputs import default_image_root
        from clip_operator.operators.places import model_place

        root = request.image_root or default_image_root(request.input)
        # Of a data set at the hub it is the name, as a model's is: no folder, unless there is one that is called so.
        if self._readable is not None and not self._readable.hold(model_place(root)):
            raise outside("allowed_inputs", "image_root", root)

    def _check_writable(self, name: str, uri: str) -> None:
        from clip_operator.operators.places import place_of

        if (allowed := self._places("allowed_outputs")) is not None and not allowed.hold(place_of(uri)):
            raise outside("allowed_outputs", name, uri)

    def _check_model(self, name: str) -> None:
        from clip_operator.operators.places import model_place

        if (allowed := self._places("allowed_models")) is not None and not allowed.hold(model_place(name)):
            raise outside("allowed_models", "model_name", name)

    def _check_python(self, path: str) -> None:
        from clip_operator.operators.places import Places, program_place

        if self.allowed_pythons is None:
            return
        allowed = Places(tuple(place for entry in self.allowed_pythons if (place := program_place(entry.rstrip("/")))))
        if not allowed.hold(program_place(path)):
            raise outside("allowed_pythons", "python", path)

    def _check_image_hosts(self, hosts: Iterable[str]) -> None:
        from clip_operator.images.hosts import AllowedHosts

        if self.allowed_image_hosts is None:
            return
        allowed = AllowedHosts(self.allowed_image_hosts)
        for host in hosts:
            if not allowed.cover(host):
                raise outside("allowed_image_hosts", "image_hosts", host)

    def _with_image_prefixes(self, request: EvaluationRequest) -> EvaluationRequest:
        from clip_operator.images.buckets import parse_bucket

        if self._readable is None:
            return request
        for bucket in request.image_buckets:
            if not self._readable.reach_into(parse_bucket(bucket)):
                raise outside("allowed_inputs", "image_buckets", bucket)
        return request.model_copy(update={"image_prefixes": self._readable.prefixes})

    @cached_property
    def _readable(self) -> Places | None:
        """What may be read: the inputs, and what may be written, for a step is what a task before has written."""
        inputs, outputs = self._places("allowed_inputs"), self._places("allowed_outputs")
        if inputs is None or outputs is None:
            return inputs
        return type(inputs)(inputs.roots + outputs.roots)

    def _places(self, option: str) -> Places | None:
        from clip_operator.operators.places import Places

        entries = getattr(self, option)
        try:
            return None if entries is None else Places.parse(entries, models=option == "allowed_models")
        except RequestError as error:
            raise RequestError(f"Airflow's configuration, [{SECTION}] {option}: {error}") from None


NO_LIMITS = Limits()


def outside(option: str, name: str, value: str) -> RequestError:
    """Return the error for a value that an administrator's limit leaves out."""
    return RequestError(
        f"{name}={display(value)!r} is outside what the administrator of this Airflow allows. Give another, or ask the "
        f"administrator to add it to [{SECTION}] {option} in Airflow's configuration"
    )


def _entries(option: str) -> tuple[str, ...] | None:
    text = conf.get(SECTION, option, fallback=None)
    if text is None:
        return None
    entries = tuple(entry.strip() for entry in str(text).replace("\n", ",").split(",") if entry.strip())
    if not entries:
        raise RequestError(
            f"Airflow's configuration, [{SECTION}] {option} is set and empty; the administrator should remove it for "
            f"no limit, or write {NOTHING} to allow nothing"
        )
    return () if entries == (NOTHING,) else entries
