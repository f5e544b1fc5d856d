"""The Airflow that these tests share, and its logs when one of them fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from demo.object_store import ObjectStore
from tests.conftest import missing_part
from tests.integration.airflow_cluster import AirflowCluster, airflow_cluster
from tests.integration.postgres import postgres_programs


@pytest.fixture(scope="module")
def airflow(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowCluster]:
    """Airflow with all its services, running the DAGs in dags/ with access to the S3 server."""
    if postgres_programs() is None:
        missing_part("PostgreSQL (apt-get install postgresql)")
    variables = {
        "AIRFLOW_CONN_AWS_DEFAULT": store.airflow_connection,
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "True",  # for the DAG that waits for scores
    }
    with airflow_cluster(tmp_path_factory.mktemp("cluster") / "airflow", variables) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the services' and tasks' logs to the report of a test that failed."""
    report = yield
    cluster: Any = item.funcargs.get("airflow")
    if report.failed and isinstance(cluster, AirflowCluster):
        report.sections += [(f"Airflow's {name}", end) for name, end in cluster.log_ends().items()]
    return report
