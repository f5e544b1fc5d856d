"""S3 access from an Airflow connection, for this process and for another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clip_operator.errors import JobError
from clip_operator.operators.parameters import DEFAULT_CONNECTION
from clip_operator.storage import S3Access, Storage, scheme_of

if TYPE_CHECKING:
    from botocore.config import Config


@dataclass(frozen=True)
class AwsConnection:
    """What a connection says of S3.

    :param access: how this process reaches S3.
    :param owns_credentials: the credentials are the connection's own, not what boto3 finds around it.
    """

    access: S3Access
    owns_credentials: bool

    def storage(self) -> Storage:
        """Return where URIs lead in this process."""
        return Storage(self.access)

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables that give a child process the same access.

        Credentials that boto3 finds by itself (environment, service account) are left to the child, which can also
        renew them. Temporary ones of the connection's own (an assumed role) are passed as they are, until they expire.

        :raises JobError: the access cannot be expressed in variables.
        """
        if self.access.verify is False:
            raise JobError(
                "verify=false in the AWS connection cannot be passed to another interpreter; give a CA bundle"
            )
        settings = _variables(self.access.config) if self.access.config is not None else {}
        session = self.access.session
        credentials = session.get_credentials() if session is not None and self.owns_credentials else None
        frozen = credentials and credentials.get_frozen_credentials()
        variables = {
            "AWS_ACCESS_KEY_ID": frozen and frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen and frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen and frozen.token,
            "AWS_DEFAULT_REGION": session and session.region_name,
            "AWS_ENDPOINT_URL_S3": self.access.endpoint_url,
            "AWS_CA_BUNDLE": self.access.verify if isinstance(self.access.verify, str) else None,
            **settings,
        }
        return {name: value for name, value in variables.items() if value}


def aws_connection(aws_conn_id: str | None, uris: Iterable[str]) -> AwsConnection:
    """Return what a connection says of S3; with None, what boto3 finds by itself.

    The default connection is looked up only if one of the ``uris`` is in S3: a job over local files needs no provider.

    :raises JobError: there is no such connection, or the Amazon provider is not installed.
    """
    if aws_conn_id is None or (aws_conn_id == DEFAULT_CONNECTION and not any(map(_is_s3, uris))):
        return AwsConnection(S3Access(), owns_credentials=False)
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError:
        raise JobError(
            f"the connection aws_conn_id={aws_conn_id!r} needs the Amazon provider: "
            "pip install apache-airflow-providers-amazon, or set aws_conn_id=None to leave credentials to boto3"
        ) from None
    hook = AwsBaseHook(aws_conn_id=aws_conn_id, client_type="s3")
    try:
        session, connection = hook.get_session(), hook.conn_config
    except Exception as error:  # the hook raises Airflow's, botocore's and its own exceptions
        raise JobError(f"cannot read S3 credentials from the connection aws_conn_id={aws_conn_id!r}: {error}") from None
    if not connection and aws_conn_id != DEFAULT_CONNECTION:
        # The hook only warns and goes on with whatever credentials it finds: another account's, perhaps.
        raise JobError(f"there is no Airflow connection aws_conn_id={aws_conn_id!r}; add it, or name another")
    access = S3Access(
        session, connection.get_service_endpoint_url("s3"), hook.verify, config=connection.botocore_config
    )
    return AwsConnection(access, bool(connection.aws_access_key_id or connection.role_arn or connection.profile_name))


def _is_s3(uri: str) -> bool:
    return scheme_of(uri) == "s3"


def _variables(config: Config) -> dict[str, str]:
    """Return the environment variables that say the same as the connection's botocore settings.

    :raises JobError: there is no variable for one of them.
    """
    from botocore.config import Config

    defaults = vars(Config())
    settings = {
        name: value
        for name, value in vars(config).items()
        if not name.startswith("_") and value != defaults.get(name) and value is not None
    }
    retries = dict(settings.pop("retries", {}))
    if "max_attempts" in retries:  # botocore's own name for the tries after the first
        retries.setdefault("total_max_attempts", retries.pop("max_attempts") + 1)
    named = {
        "AWS_REQUEST_CHECKSUM_CALCULATION": settings.pop("request_checksum_calculation", None),
        "AWS_RESPONSE_CHECKSUM_VALIDATION": settings.pop("response_checksum_validation", None),
        "AWS_MAX_ATTEMPTS": retries.get("total_max_attempts"),
        "AWS_RETRY_MODE": retries.get("mode"),
        "AWS_DEFAULT_REGION": settings.pop("region_name", None),
    }
    if settings:
        raise JobError(
            f"{', '.join(sorted(settings))} in the AWS connection's config_kwargs cannot be passed to another "
            "interpreter; leave it out, or say the same in an AWS config file that both read (AWS_CONFIG_FILE)"
        )
    return {name: str(value) for name, value in named.items() if value is not None}
