"""What Airflow lists of this package among its providers."""

from __future__ import annotations

from typing import Any

from clip_operator import __version__

_INTEGRATION = "CLIP scores"

# Options of the section [clip_operator] that limit what parameters may ask for: what is listed, and an example.
_LIMITS = {
    "allowed_inputs": (
        "Places that data sets and images may be in: prefixes in stores, folders, hf: names.",
        "s3://team/data, hf:owner, /mnt/pairs",
    ),
    "allowed_outputs": (
        "Places that steps, what stands beside them, and score stores may be written to. They may be read, too.",
        "s3://team/steps",
    ),
    "allowed_models": (
        "Models: hub ids or owners at the hub, prefixes in stores, folders, builtin:// for those of the package.",
        "openai/clip-vit-base-patch32, laion, s3://team/models, builtin://",
    ),
    "allowed_image_hosts": (
        "Hosts, addresses and networks that image_hosts may name, written as there.",
        "*.images.example.org, 10.1.0.0/16",
    ),
    "allowed_connections": (
        "Connections that aws_conn_id may name; environment for none, which takes the worker's own credentials.",
        "team_store, environment",
    ),
    "allowed_pythons": (
        "Interpreters that python may name, or folders of such.",
        "/opt/clip/bin/python",
    ),
    "allowed_pod_images": (
        "Images of all containers of a pod: with a tag or digest that one, without one any, with a slash at its end "
        "all below.",
        "registry.example/team/clip-operator",
    ),
    "allowed_namespaces": ("Namespaces of pods.", "ml"),
    "allowed_service_accounts": ("Service accounts of pods. One that names none has default.", "clip-scorer"),
    "allowed_secrets": ("Secrets and ConfigMaps that a pod may name.", "clip-s3"),
    "allowed_pod_arguments": (
        "Arguments of pod that may be given beside those that other options limit, while any limits pods.",
        "volumes, volume_mounts",
    ),
}


def provider_info() -> dict[str, Any]:
    """Return what Airflow asks of a provider, as its ``provider_info.schema.json`` has it."""
    return {
        "package-name": "airflow-clip-operator",
        "name": _INTEGRATION,
        "description": "Scores image-text alignment with CLIP over data sets in object storage.",
        "versions": [__version__],
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"]}],
        "operators": [{"integration-name": _INTEGRATION, "python-modules": ["clip_operator.operators"]}],
        "extra-links": ["clip_operator.operators.links.ReportLink", "clip_operator.operators.links.ScoredStepLink"],
        "config": {
            "clip_operator": {
                "description": "What airflow-clip-operator keeps to, whoever gives a task its parameters.",
                "options": {
                    **{name: _limit(*told) for name, told in _LIMITS.items()},
                    "page_connections": _option(
                        "Connections that the pages in the UI may read with, beside those that a DAG's file gives its "
                        "task; environment for none, which takes the API server's own credentials. Commas or lines "
                        "between them.",
                        "team_store, environment",
                    ),
                    "signing_key": {
                        **_option(
                            "With a key, what the package finds in a store (manifests, resume points, plans, scores) "
                            "counts only if it was signed with the same."
                        ),
                        "sensitive": True,
                    },
                },
            }
        },
    }


def _limit(listed: str, example: str) -> dict[str, Any]:
    return _option(f"{listed} Commas or lines between them; none allows nothing. Not set, there is no limit.", example)


def _option(description: str, example: str | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": "string",
        "example": example,
        "default": None,
    }
