"""How a process lets another one that it has started reach S3 as it does itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clip_operator.errors import JobError
from clip_operator.storage.objects import CredentialsError
from clip_operator.storage.s3.access import S3Access

Keys = tuple[str, str, str | None]
"""The access key, the secret key and, of passing credentials, the session token."""

# Keys that may pass are asked for again so often. The session that they come from renews its own long before they pass.
_KEYS_HOLD = timedelta(minutes=5)


@dataclass(frozen=True)
class S3Settings:
    """An :class:`S3Access` without its session, to hand to another process.

    :param config: the botocore settings that differ from botocore's own; ``signature_version`` None is unsigned.
    :param own_session: there was a session; its keys are to be asked for.
    """

    endpoint_url: str | None
    verify: bool | str | None
    timeout_seconds: float
    config: dict[str, Any] | None
    own_session: bool
    region: str | None
    profile: str | None

    @classmethod
    def of(cls, access: S3Access) -> S3Settings:
        """Return what there is to hand over of this access."""
        session = access.session
        profile = None if session is None else session.profile_name
        return cls(
            access.endpoint_url,
            access.verify,
            access.timeout_seconds,
            None if access.config is None else _config_settings(access.config),
            own_session=session is not None,
            region=None if session is None else session.region_name,
            profile=None if profile == "default" else profile,
        )

    def access(self, ask: Callable[[], Keys | None]) -> S3Access:
        """Return the access that was handed over.

        :param ask: returns the session's keys as they are now, or None if it has none.
        :raises CredentialsError: they cannot be had.
        """
        import boto3
        from botocore.config import Config
        from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, RefreshableCredentials
        from botocore.session import Session

        if not self.own_session:
            return S3Access(None, self.endpoint_url, self.verify, self.timeout_seconds, self._config(Config))

        class HandedOver(CredentialProvider):  # type: ignore[misc] # botocore has no types
            METHOD = "handed-over"

            def load(self) -> Any:
                keys = ask()
                if keys is None:
                    return None
                if keys[2] is None:
                    return Credentials(*keys, method=self.METHOD)
                return RefreshableCredentials.create_from_metadata(
                    _passing(keys), lambda: _passing(ask()), self.METHOD, advisory_timeout=60, mandatory_timeout=30
                )

        session = Session(profile=self.profile)
        session.register_component("credential_provider", CredentialResolver([HandedOver()]))
        return S3Access(
            boto3.session.Session(botocore_session=session, region_name=self.region),
            self.endpoint_url,
            self.verify,
            self.timeout_seconds,
            self._config(Config),
        )

    def _config(self, config_class: Any) -> Any:
        if self.config is None:
            return None
        from botocore import UNSIGNED

        unsigned = "signature_version" in self.config and self.config["signature_version"] is None
        return config_class(**self.config | ({"signature_version": UNSIGNED} if unsigned else {}))


def keys_of(access: S3Access) -> Keys | None:
    """Return the keys of the access's session as they are now, renewed if need be; None if it has none.

    :raises JobError: they cannot be had.
    """
    try:
        credentials = None if access.session is None else access.session.get_credentials()
        if credentials is None:
            return None
        frozen = credentials.get_frozen_credentials()
    except JobError:
        raise
    except Exception as error:  # botocore's, and those of whoever made the session
        raise CredentialsError(f"the AWS credentials could not be had or renewed: {error}") from None
    return frozen.access_key, frozen.secret_key, frozen.token


def _passing(keys: Keys | None) -> dict[str, str | None]:
    if keys is None:
        raise CredentialsError("the AWS credentials are gone")
    expiry = (datetime.now(UTC) + _KEYS_HOLD).isoformat()
    return {"access_key": keys[0], "secret_key": keys[1], "token": keys[2], "expiry_time": expiry}


def _config_settings(config: Any) -> dict[str, Any]:
    from botocore import UNSIGNED
    from botocore.config import Config

    defaults = vars(Config())
    settings = {
        name: value
        for name, value in vars(config).items()
        if not name.startswith("_") and name in Config.OPTION_DEFAULTS and value != defaults.get(name)
    }
    if settings.get("signature_version") is UNSIGNED:
        settings["signature_version"] = None
    return settings
