"""How a container in Azure is reached, by what its URI and the environment say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clip_operator.storage.cloud.names import Bucket
from clip_operator.storage.objects import CredentialsError

if TYPE_CHECKING:
    from obstore.store import AzureConfig

_FABRIC = "fabric.microsoft.com"
_TRUE = frozenset({"1", "true", "yes", "on"})

# A key and a shared access signature are one account's. An identity may have a right to several.
_OF_ONE_ACCOUNT = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)


def account_of(bucket: Bucket, environment: Mapping[str, str]) -> str:
    """Return the name of the storage account, as the URI or else the environment has it.

    :raises CredentialsError: neither names one, or the environment's key is another account's.
    """
    told = _connection(environment)
    known = told.get("accountname") or environment.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not known and _is_emulated(environment, told):
        known = "devstoreaccount1"
    if not bucket.account and not known:
        raise CredentialsError(
            f"no storage account is named for the container '{bucket.name}': set AZURE_STORAGE_ACCOUNT_NAME "
            f"or AZURE_STORAGE_CONNECTION_STRING, or write abfss://{bucket.name}@account.dfs.core.windows.net/"
        )
    owns = bool(told) or any(environment.get(name) for name in _OF_ONE_ACCOUNT)
    if bucket.account and known and owns and bucket.account != known:
        raise CredentialsError(
            f"the credentials in the environment are of the storage account '{known}', and are not sent to "
            f"'{bucket.account}', which the URI names: set those of that one, or use an identity that may read both"
        )
    return bucket.account or known


def config_of(bucket: Bucket, environment: Mapping[str, str]) -> AzureConfig:
    """Return what obstore is told beside what it reads from the environment by itself.

    That is the account, its key, a shared access signature, a service principal, workload identity and managed
    identity, under the names of ``AZURE_STORAGE_…`` and ``AZURE_…``. ``AZURE_STORAGE_CONNECTION_STRING`` and
    ``AZURE_STORAGE_ANON`` are adlfs's.
    """
    told = _connection(environment)
    account = account_of(bucket, environment)
    config: AzureConfig = {"account_name": account, "container_name": bucket.name}
    if _is_emulated(environment, told):
        config["use_emulator"] = True
        return config
    if key := told.get("accountkey"):
        config["account_key"] = key
    if sas := told.get("sharedaccesssignature"):
        config["sas_key"] = sas
    if environment.get("AZURE_STORAGE_ANON", "").lower() in _TRUE:
        config["skip_signature"] = True
    if endpoint := told.get("blobendpoint") or _own_endpoint(environment):
        config["endpoint"] = endpoint.rstrip("/")
    elif bucket.domain == _FABRIC:
        config["use_fabric_endpoint"] = True
    elif domain := bucket.domain or told.get("endpointsuffix"):
        config["endpoint"] = f"{told.get('defaultendpointsprotocol', 'https')}://{account}.blob.{domain}"
    return config


def endpoint_of(config: AzureConfig) -> str:
    """Return where requests go to."""
    if config.get("use_emulator"):
        return "http://127.0.0.1:10000"
    domain = _FABRIC if config.get("use_fabric_endpoint") else "core.windows.net"
    return config.get("endpoint") or f"https://{config['account_name']}.blob.{domain}"


def _own_endpoint(environment: Mapping[str, str]) -> str | None:
    return environment.get("AZURE_STORAGE_ENDPOINT") or environment.get("AZURE_ENDPOINT")


def _is_emulated(environment: Mapping[str, str], told: Mapping[str, str]) -> bool:
    asked = environment.get("AZURE_STORAGE_USE_EMULATOR") or told.get("usedevelopmentstorage") or ""
    return asked.lower() in _TRUE


def _connection(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of the connection string, their names in lower case."""
    fields = (field.partition("=") for field in environment.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"))
    return {name.strip().lower(): value.strip() for name, _, value in fields if value}
