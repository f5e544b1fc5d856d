"""What Airflow lists of this package among its providers."""

from __future__ import annotations

from typing import Any

from clip_operator import __version__

_INTEGRATION = "CLIP scores"


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
    }
