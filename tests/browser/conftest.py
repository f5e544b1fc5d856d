"""An Airflow as one who tries it has it, a browser in which a user is logged in, and pictures of what went wrong."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from demo.object_store import ObjectStore
from tests.browser.airflow_ui import AirflowUI
from tests.browser.chromium import Window, chromium, chromium_program, window
from tests.browser.screenshots import keep
from tests.conftest import missing_part
from tests.integration.airflow_cluster import USER, AirflowCluster, airflow_standalone


@pytest.fixture(scope="module")
def airflow(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowCluster]:
    """``airflow standalone`` with the DAGs in dags/ and the plugin in plugins/, and access to the S3 server."""
    if chromium_program() is None:
        missing_part("Chromium (apt-get install chromium)")
    variables = {"AIRFLOW_CONN_AWS_DEFAULT": store.airflow_connection}
    with airflow_standalone(tmp_path_factory.mktemp("standalone") / "airflow", variables) as running:
        yield running


# Playwright runs an event loop for as long as the browser lives, so no longer than the tests that need it.
@pytest.fixture(scope="module")
def browser(airflow: AirflowCluster) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def desk(browser: Browser, airflow: AirflowCluster) -> Iterator[Window]:
    """The window in which the user is logged in."""
    with window(browser) as opened:
        AirflowUI(opened.page, airflow.url).log_in(USER, airflow.password)
        yield opened


@pytest.fixture(scope="module")
def ui(desk: Window, airflow: AirflowCluster) -> AirflowUI:
    """Airflow in that window."""
    return AirflowUI(desk.page, airflow.url)


@pytest.fixture(autouse=True)
def _no_errors(desk: Window) -> Iterator[None]:
    """Fail the test in which a page ran into an error."""
    yield
    errors, desk.errors = desk.errors, []
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep a picture of the window of a test that failed, and add Airflow's logs to its report."""
    report = yield
    cluster: Any = item.funcargs.get("airflow")
    if report.failed and isinstance(cluster, AirflowCluster):
        report.sections += [(f"Airflow's {name}", end) for name, end in cluster.log_ends().items()]
    desk: Any = item.funcargs.get("desk")
    if report.failed and isinstance(desk, Window):
        keep(desk.page, f"failed-{item.name}")
    return report
