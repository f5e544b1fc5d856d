"""S3 credentials from an Airflow connection, for this process and for another one."""

from __future__ import annotations

from collections.abc import Mapping

from clip_operator.errors import JobError
from clip_operator.storage import S3Access, scheme_of

DEFAULT_CONNECTION = "aws_default"


def s3_access(aws_conn_id: str | None, uris: list[str]) -> S3Access | None:
    """Return how S3 is reached with a connection, or None where boto3 finds its own way.

    The default connection is looked up only if one of the ``uris`` is in S3: a job over local files needs no provider.

    :raises JobError: there is no such connection, or the Amazon provider is not installed.
    """
    if aws_conn_id is None or (aws_conn_id == DEFAULT_CONNECTION and not any(map(_is_s3, uris))):
        return None
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        raise JobError(
            f"the connection aws_conn_id={aws_conn_id!r} needs the Amazon provider: "
            "pip install apache-airflow-providers-amazon, or set aws_conn_id=None to leave credentials to boto3"
        ) from None
    hook = AwsBaseHook(aws_conn_id=aws_conn_id, client_type="s3")
    try:
        session = hook.get_session()
    except Exception as error:  # the hook raises Airflow's, botocore's and its own exceptions
        raise JobError(f"cannot read S3 credentials from the connection aws_conn_id={aws_conn_id!r}: {error}") from None
    return S3Access(session, hook.conn_config.get_service_endpoint_url("s3"), hook.verify)


def environment(access: S3Access) -> Mapping[str, str]:
    """Return the environment variables that give another process the same access.

    Temporary credentials (an assumed role) are passed as they are and are not renewed there.

    :raises JobError: the session has no credentials, or cannot be expressed in variables.
    """
    assert access.session is not None
    credentials = access.session.get_credentials()
    if credentials is None:
        raise JobError("the AWS connection holds no credentials; set aws_conn_id=None to leave them to boto3")
    if access.verify is False:
        raise JobError("verify=false in the AWS connection cannot be passed to another interpreter; give a CA bundle")
    frozen = credentials.get_frozen_credentials()
    variables = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
        "AWS_DEFAULT_REGION": access.session.region_name,
        "AWS_ENDPOINT_URL_S3": access.endpoint_url,
        "AWS_CA_BUNDLE": access.verify if isinstance(access.verify, str) else None,
    }
    return {name: value for name, value in variables.items() if value}


def _is_s3(uri: str) -> bool:
    return scheme_of(uri) in ("s3", "s3a")
