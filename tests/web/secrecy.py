"""An auth manager with a DAG that is not for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

SECRET_DAG = "secret"
"""Everybody may see this DAG, but only an admin its XComs."""


class SecrecyAuthManager(SimpleAuthManager):
    """Airflow's own simple one, whose viewers see the XComs of all DAGs, with one exception to that."""

    def is_authorized_dag(
        self,
        *,
        method: ResourceMethod,
        user: SimpleAuthManagerUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        names_another = details is not None and details.id not in (None, SECRET_DAG)
        if access_entity == DagAccessEntity.XCOM and not names_another and user.role != "admin":
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)


@dataclass
class Made:
    """Leaves a file where it is told to when somebody makes one."""

    path: str

    def __post_init__(self) -> None:
        Path(self.path).touch()
