"""What a user says of the way to S3 holds for whole objects, too: obstore keeps to it, or boto3 reads alone."""

from __future__ import annotations

import datetime
import json
import logging
import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clip_operator.storage import S3Access, Storage, StorageError
from clip_operator.storage.s3.route import NoRoute, Route, route_to
from tests.conftest import S3
from tests.faulty_store import Fault, FaultyStore, Kind, Request, faulty_store
from tests.images.conftest import WebServer
from tests.storage.s3.reading import KEYS, by_obstore, client_of, clients, in_thread, reaching, read_twice, with_headers

FIRST = "s3://bucket/first"


def alone(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons that were told for boto3 to read alone."""
    found = [record.getMessage() for record in caplog.records if "by boto3 alone" in record.getMessage()]
    return [message.partition("than obstore: ")[2] for message in found]


def signed_for(request: Request) -> tuple[str, str]:
    """Return who has signed a request, and for which region."""
    key, _, region, service, _ = request.headers["Authorization"].partition("Credential=")[2].split(",")[0].split("/")
    assert service == "s3"
    return key, region


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


class TestHonoured:
    def test_region_keys_and_user_agent(self, simple: FaultyStore, caplog: pytest.LogCaptureFixture) -> None:
        storage = reaching(S3Access(KEYS), simple, config=Config(user_agent_extra="mine"))
        assert read_twice(storage, FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]
        first, second = simple.requests
        assert signed_for(first) == signed_for(second) == ("one", "eu-west-7")
        assert str(second.headers["User-Agent"]).startswith("obstore/")
        assert str(second.headers["User-Agent"]).endswith(str(first.headers["User-Agent"]))
        assert not alone(caplog)

    def test_an_endpoint_with_a_path(self, web: WebServer, simple: FaultyStore) -> None:
        web.answers["/a/b/bucket/first"] = with_headers(b"below")
        storage = Storage(S3Access(KEYS, f"{simple.url}/a/b/"))
        assert read_twice(storage, FIRST) == [b"below"] * 2
        assert clients(simple) == ["boto3", "obstore"]

    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
    def test_an_endpoint_from_the_environment(
        self, simple: FaultyStore, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, simple.url)
        assert read_twice(Storage(S3Access(KEYS)), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]

    def test_the_arguments_before_the_environment(self, simple: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        nowhere = "http://127.0.0.1:1"
        for name, value in {
            "AWS_ENDPOINT_URL": nowhere,
            "AWS_ENDPOINT_URL_S3": nowhere,
            "AWS_ENDPOINT": nowhere,
            "AWS_REGION": "of-the-environment",
            "AWS_ACCESS_KEY_ID": "of-the-environment",
            "AWS_SECRET_ACCESS_KEY": "of-the-environment",
            "AWS_SESSION_TOKEN": "of-the-environment",
            "AWS_S3_EXPRESS": "true",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REQUEST_PAYER": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        }.items():
            monkeypatch.setenv(name, value)
        assert read_twice(reaching(S3Access(KEYS), simple), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]
        assert signed_for(simple.requests[1]) == ("one", "eu-west-7")
        assert not {"x-amz-security-token", "x-amz-request-payer"} & {
            name.lower() for name in simple.requests[1].headers
        }

    def test_a_profile(self, simple: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "config").write_text(
            "[profile mine]\nregion = eu-west-9\naws_access_key_id = two\naws_secret_access_key = secret\n"
            f"aws_session_token = token\nendpoint_url = {simple.url}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_PROFILE", "mine")
        assert read_twice(Storage(), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]
        assert signed_for(simple.requests[1]) == ("two", "eu-west-9")
        assert simple.requests[1].headers["x-amz-security-token"] == "token"

    def test_no_signature(self, simple: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-environment")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment")
        storage = reaching(S3Access(), simple, config=Config(signature_version=UNSIGNED))
        assert read_twice(storage, FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]
        assert "Authorization" not in simple.requests[1].headers

    def test_a_timeout_of_the_users_own(self, s3: S3, no_pauses: list[float]) -> None:
        uri = s3.put("x", b"content")
        with faulty_store(s3.store.endpoint_url, [Fault(Kind.STALLED, when=by_obstore, times=1)]) as proxy:
            storage = reaching(s3.storage.s3_access, proxy, timeout_seconds=600, config=Config(read_timeout=0.3))
            assert read_twice(storage, uri) == [b"content"] * 2  # within the minute that they have
        assert [request.fault for request in proxy.requests if by_obstore(request)] == ["STALLED"]

    def test_a_proxy_that_is_not_for_the_store(self, simple: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert read_twice(reaching(S3Access(KEYS), simple), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3", "obstore"]


class TestNotHonoured:
    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            (Config(retries={"mode": "adaptive"}), "with the retry mode 'adaptive', boto3 limits the rate of requests"),
            (Config(signature_version="s3"), "boto3 signs in another way than S3's version 4"),
            (Config(client_cert="/some/certificate.pem"), "boto3 shows a client certificate"),
            (Config(auth_scheme_preference="sigv4"), "of the botocore settings auth_scheme_preference"),
        ],
        ids=["retry mode", "signature", "certificate", "unknown"],
    )
    def test_a_setting_of_botocores_own(
        self, simple: FaultyStore, caplog: pytest.LogCaptureFixture, config: Config, reason: str
    ) -> None:
        storage = reaching(S3Access(KEYS), simple, config=config)
        for _ in range(2):
            assert read_twice(storage, FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3"] * 4
        assert alone(caplog) == [reason], "it is told once"

    def test_a_header_that_the_session_adds(self, simple: FaultyStore, caplog: pytest.LogCaptureFixture) -> None:
        def pay(request: Any, **_: Any) -> None:
            request.headers["x-amz-request-payer"] = "requester"

        session = boto3.session.Session("one", "secret", region_name="eu-west-7")
        session.events.register("before-sign.s3.GetObject", pay)
        assert read_twice(reaching(S3Access(session), simple), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3"] * 2
        assert alone(caplog) == ["boto3 sends the header x-amz-request-payer"]

    @pytest.mark.parametrize("by", ["config", "environment"])
    def test_a_proxy(
        self,
        web: WebServer,
        simple: FaultyStore,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        by: str,
    ) -> None:
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        config = None
        if by == "config":
            config = Config(proxies={"http": simple.url})
        else:
            monkeypatch.setenv("http_proxy", simple.url)
        url = "http://store.example/bucket/first"
        web.answers[url] = with_headers(b"elsewhere")
        storage = Storage(S3Access(KEYS, "http://store.example", config=config))
        assert read_twice(storage, FIRST) == [b"elsewhere"] * 2
        assert [(request.target, client_of(request)) for request in simple.requests] == [(url, "boto3")] * 2
        assert alone(caplog) == ["boto3 reaches the store through a proxy"]

    def test_what_only_obstore_would_take_from_the_environment(
        self, simple: FaultyStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "sse-c")
        assert read_twice(reaching(S3Access(KEYS), simple), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3"] * 2
        assert alone(caplog) == ["obstore would heed AWS_SERVER_SIDE_ENCRYPTION, which boto3 does not"]

    def test_obstore_is_not_installed(
        self, simple: FaultyStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in sys.modules if name.startswith("clip_operator.storage.s3.quick_")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "obstore", None)
        assert read_twice(reaching(S3Access(KEYS), simple), FIRST) == [b"first"] * 2
        assert clients(simple) == ["boto3"] * 2
        [reason] = alone(caplog)
        assert reason.startswith("ModuleNotFoundError: import of obstore halted")


@dataclass
class Asked:
    """Plays AWS, which cannot be asked: keeps the request that boto3 would send, and answers it."""

    requests: list[Any] = field(default_factory=list)

    def __call__(self, request: Any, **_: Any) -> AWSResponse:
        self.requests.append(request)
        return AWSResponse(request.url, 403, {}, None)


@pytest.mark.parametrize(
    ("bucket", "config", "base_url"),
    [
        ("bucket", {}, "https://bucket.s3.eu-west-1.amazonaws.com"),
        ("my.bucket", {}, "https://s3.eu-west-1.amazonaws.com/my.bucket"),
        ("bucket", {"s3": {"addressing_style": "path"}}, "https://s3.eu-west-1.amazonaws.com/bucket"),
        ("bucket", {"use_dualstack_endpoint": True}, "https://bucket.s3.dualstack.eu-west-1.amazonaws.com"),
        ("bucket", {"s3": {"use_accelerate_endpoint": True}}, "https://bucket.s3-accelerate.amazonaws.com"),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint:name",
            {},
            "https://name-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
        ),
        ("bucket", {"use_fips_endpoint": True}, None),
        ("bucket--euw1-az1--x-s3", {}, None),
    ],
)
def test_the_way_is_the_one_that_boto3_goes(
    monkeypatch: pytest.MonkeyPatch, bucket: str, config: dict[str, Any], base_url: str | None
) -> None:
    session = boto3.session.Session("one", "secret", region_name="eu-west-1")
    client = session.client("s3", config=Config(**config, retries={"total_max_attempts": 1}))
    asked = Asked()
    client.meta.events.register("before-send.s3", asked)
    with suppress(Exception):
        client.get_object(Bucket=bucket, Key="a/b c.jpg")["Body"].read()
    [request, *_] = asked.requests
    if base_url is None:
        with pytest.raises(NoRoute):
            route_to("a/b c.jpg", request)
    else:
        route = route_to("a/b c.jpg", request)
        assert route == Route(base_url, "eu-west-1", "one", route.user_agent)


def test_credentials_that_are_renewed_sign_from_then_on(
    simple: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renew(key: str) -> None:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
        answer = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": f"token of {key}"}
        (tmp_path / "answer.json").write_text(json.dumps({**answer, "Expiration": ends.isoformat()}))

    (tmp_path / "config").write_text(
        f"[default]\nregion = eu-west-7\ncredential_process = cat {tmp_path / 'answer.json'}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    storage = Storage(S3Access(endpoint_url=simple.url))
    renew("one")
    assert read_twice(storage, FIRST) == [b"first"] * 2
    renew("two")  # what ends within minutes is renewed before each use
    assert in_thread(storage.read, FIRST) == b"first"
    assert clients(simple) == ["boto3", "obstore", "obstore"]
    assert [request.access_key for request in simple.requests] == ["one", "one", "two"]
    assert simple.requests[2].headers["x-amz-security-token"] == "token of two"


@dataclass
class Authority:
    """Certificates for 127.0.0.1, and what they are trusted by."""

    bundle: Path
    server: Path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    def certificate(name: str, issuer: Any, key: Any, signer: Any, is_authority: bool) -> x509.Certificate:
        today = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signer, hashes.SHA256())

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made = Authority(tmp_path / "bundle.pem", tmp_path / "server.pem")
    pem = serialization.Encoding.PEM
    made.bundle.write_bytes(certificate("root", "root", root, root, True).public_bytes(pem))
    made.server.write_bytes(
        certificate("store", "root", leaf, root, False).public_bytes(pem)
        + leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@pytest.fixture
def secure(authority: Authority) -> Iterator[tuple[WebServer, list[str]]]:
    """A store that speaks https, and who has asked it."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.server)
    server, asked = WebServer(tls=tls), []

    def answer(handler: Any) -> None:
        asked.append(handler.headers["User-Agent"].partition("/")[0].lower())
        with_headers(b"first")(handler)

    server.answers["/bucket/first"] = answer
    yield server, asked
    server.close()


class TestCertificates:
    def test_none_are_looked_at(self, secure: tuple[WebServer, list[str]]) -> None:
        web, asked = secure
        assert read_twice(Storage(S3Access(KEYS, web.url, verify=False)), FIRST) == [b"first"] * 2
        assert asked == ["boto3", "obstore"]

    @pytest.mark.parametrize("by", ["argument", "environment"])
    def test_a_bundle_is_all_that_is_trusted(
        self,
        secure: tuple[WebServer, list[str]],
        authority: Authority,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        by: str,
    ) -> None:
        web, asked = secure
        bundle = os.fspath(authority.bundle)
        if by == "environment":
            monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
        access = S3Access(KEYS, web.url, verify=bundle if by == "argument" else None)
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        assert read_twice(Storage(access), FIRST) == [b"first"] * 2
        assert asked == ["boto3"] * 2
        assert alone(caplog) == [f"boto3 trusts the certificates in {bundle} alone; let SSL_CERT_FILE name them, too"]
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        assert read_twice(Storage(access), FIRST) == [b"first"] * 2
        assert asked[2:] == ["boto3", "obstore"]

    def test_one_that_is_not_trusted_is_refused(
        self, secure: tuple[WebServer, list[str]], authority: Authority, no_pauses: list[float]
    ) -> None:
        web, asked = secure
        with pytest.raises(StorageError):
            in_thread(Storage(S3Access(KEYS, web.url)).read, FIRST)
        assert not asked
