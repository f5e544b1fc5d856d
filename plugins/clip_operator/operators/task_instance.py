"""What every task of the package has to do with Airflow: its parameters, who it is, and its errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException, AirflowTaskTimeout, conf

from clip_operator.errors import ClipOperatorError, JobError, RequestError
from clip_operator.operators.failures import tell_failure
from clip_operator.operators.parameters import as_meant, texts_in
from clip_operator.proof.signing import VARIABLE

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from clip_operator.operators.aws import AwsConnection
    from clip_operator.request import Requester


@contextmanager
def told_to_airflow(context: Context) -> Iterator[None]:
    """Turn the package's errors into Airflow's, and say why the task fails where people look.

    Within, the administrator's signing key is where the package looks.
    """
    key = "" if os.environ.get(VARIABLE) else conf.get("clip_operator", "signing_key", fallback="")
    if key:
        os.environ[VARIABLE] = key  # of this task's own process, and of another interpreter that it starts
    try:
        yield
    except RequestError as error:
        tell_failure(context, error)
        raise AirflowFailException(str(error)) from None
    except ClipOperatorError as error:
        tell_failure(context, error)
        raise AirflowException(str(error)) from None
    except AirflowTaskTimeout:
        limit = context["task"].execution_timeout
        tell_failure(context, JobError(f"the task took longer than its execution_timeout, {limit}"))
        raise
    except AirflowException:  # Airflow's own, such as one that skips the task
        raise
    except Exception as error:
        tell_failure(context, error)
        raise
    finally:
        if key:
            os.environ.pop(VARIABLE, None)


def parameters_of(operator: BaseOperator, names: Sequence[str]) -> dict[str, Any]:
    """Return an operator's rendered parameters, as they are meant.

    :raises RequestError: as :func:`as_meant` does.
    """
    return as_meant(type(operator), {name: getattr(operator, name) for name in names})


def connection_of(parameters: Mapping[str, Any]) -> AwsConnection:
    """Return how a task with these parameters reaches the store."""
    from clip_operator.operators.aws import aws_connection

    uris = [text for name, value in parameters.items() if name != "pod" for text in texts_in(value)]
    uris += [name if "://" in name else f"s3://{name}" for name in parameters["image_buckets"] or ()]
    return aws_connection(parameters["aws_conn_id"], uris)


def requester_of(context: Context) -> Requester:
    """Return how requests name the task instance that is running."""
    from clip_operator.request import Requester

    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return Requester(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index)
