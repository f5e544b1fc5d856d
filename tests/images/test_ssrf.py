"""Where a data set's URLs lead: to public addresses and to those that the job listed, and to no other machine.

Name servers are played: what they answer is what an attacker would choose. Only loopback is ever really connected to.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from clip_operator.errors import Reason
from clip_operator.images import ImageLoader, ImagePolicy
from clip_operator.storage import Storage
from tests.certificates import write_certificate
from tests.images.conftest import Refusal, WebServer, load, status
from tests.images.pictures import drawn, encoded

FILE = encoded(drawn())
FORBIDDEN, UNAVAILABLE = Reason.IMAGE_FORBIDDEN, Reason.IMAGE_UNAVAILABLE
PUBLIC = "93.184.216.34"


@dataclass
class Network:
    """What the world outside looks like to the loader.

    :param names: for each name, the answers to the first question, the second, …; the last one stays.
    :param asked: the names that were asked for.
    :param connected: the addresses that were connected to; all but loopback refuse it.
    """

    names: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    world = Network()
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: str, port: Any, *args: Any, **options: Any) -> Any:
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            host.encode("idna")  # as the real one does, and raises what it raises
            world.asked.append(host)
        else:
            return resolve(host, port, *args, **options)
        answers = world.names.get(host, [[]])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in answer]

    def connect_to_loopback(self: socket.socket, address: Any) -> None:
        world.connected.append(address[0])
        if not ip_address(address[0]).is_loopback:
            raise ConnectionRefusedError(111, "the tests stay on this machine")
        connect(self, address)

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("socket.socket.connect", connect_to_loopback)
    monkeypatch.setattr("urllib3.util.retry.time.sleep", [].append)
    return world


@pytest.fixture
def inside(web: WebServer) -> Iterator[WebServer]:
    """A server at another address of this machine, under the same port, that no data set may reach."""
    server = WebServer("127.0.0.2", web.port)
    server.answers["/x.png"] = status(200, FILE)
    yield server
    server.close()


def loader_for(*hosts: str) -> ImageLoader:
    return ImageLoader(Storage(), ImagePolicy(root="s3://bucket", image_hosts=hosts))


# Loopback, private and shared networks, metadata services, reserved and multicast addresses, and IPv6 that hides them.
NOT_PUBLIC = """
    127.0.0.1 127.1.2.3 0.0.0.0 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 100.100.100.200
    168.63.129.16 192.0.0.192 192.88.99.1 198.18.0.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
    :: ::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1 2001:db8::1 3fff::1 4000::1 100::1
    ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1
    2002:7f00:1:: 2002:a9fe:a9fe::1 2001::1
"""

SPELLINGS_OF_LOOPBACK = """
    127.0.0.1 127.0.0.1. 127.0.0.1.. 127.0.0.0001 2130706433 0x7f000001 0x7f.1 0x7F.0.0.1 127.1 127.0.1 0177.0.0.1
    017700000001 0 00000177.0x0.0.01 %31%32%37.0.0.1 127.0.0.1:80:80 [127.0.0.1] LOCALHOST localhost.
    [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::FFFF:7f00:1] [::127.0.0.1] [64:ff9b::127.0.0.1] [fe80::1%25lo]
"""

HOSTS_THAT_ONLY_LOOK_ALLOWED = [
    "@127.0.0.1",
    "images.example.org@127.0.0.1",
    "images.example.org:80@127.0.0.1",
    "images.example.org:x@127.0.0.1:80",
    "127.0.0.1#@images.example.org",
    "127.0.0.1?@images.example.org",
    "127.0.0.1/@images.example.org",
    "127.0.0.1\\@images.example.org",
    "127.0.0.1:80#.images.example.org",
    "127.0.0.1%00.images.example.org",
    "127.0.0.1%23.images.example.org",
    "127.0.0.1%2f.images.example.org",
    "127.0.0.1 .images.example.org",
    "127.0.0.1\t.images.example.org",
    "127.0.0.1\r\nHost: images.example.org",
    "[images.example.org]",
    "images.example.org.evil.net",
    "evil.net\\.images.example.org",
    "example.org",
]

LETTERS_AND_DIGITS_OF_OTHER_SCRIPTS = [
    "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
    "127.0.0.\N{CIRCLED DIGIT ONE}",
    "127\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}1",
    "127\N{FULLWIDTH FULL STOP}0\N{FULLWIDTH FULL STOP}0\N{FULLWIDTH FULL STOP}1",
    "images\N{IDEOGRAPHIC FULL STOP}example.org",
    "imag\N{CYRILLIC SMALL LETTER IE}s.example.org",
    "ima\N{SOFT HYPHEN}ges.example.org",
]


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_an_allowed_name_does_not_lead_to_an_address_that_is_not_public(
    network: Network, address: str, refused: Refusal
) -> None:
    network.names["images.example.org"] = [[address]]
    loader = loader_for("*.example.org")
    for scheme in ("http", "https"):
        error = refused(FORBIDDEN, load, loader, f"{scheme}://images.example.org/x.png?signature=secret")
        assert f"leads to {address}," in error.detail
        assert "image_hosts" in error.detail
        assert "secret" not in error.detail
    assert network.connected == []


@pytest.mark.parametrize(
    ("address", "connected"),
    [
        (PUBLIC, PUBLIC),
        ("2606:2800:220:1::1", "2606:2800:220:1::1"),
        (f"::ffff:{PUBLIC}", PUBLIC),
        ("64:ff9b::5db8:d822", "64:ff9b::5db8:d822"),
    ],
)
def test_an_allowed_name_leads_to_public_addresses(
    network: Network, address: str, connected: str, refused: Refusal
) -> None:
    network.names["example.org"] = [[address]]
    refused(UNAVAILABLE, load, loader_for("example.org"), "http://example.org/x.png")
    assert set(network.connected) == {connected}


@pytest.mark.parametrize("listed", ["127.0.0.1", "127.0.0.1:{port}", "127.0.0.0/8", "127.0.0.0/30:{port}", "0.0.0.0/0"])
def test_a_private_address_that_is_listed_may_stand_behind_a_name(
    network: Network, web: WebServer, listed: str
) -> None:
    web.answers["/x.png"] = status(200, FILE)
    network.names["images.internal"] = [["127.0.0.1"]]
    loader = loader_for(f"images.internal:{web.port}", listed.format(port=web.port))
    assert load(loader, f"http://images.internal:{web.port}/x.png").tobytes() == drawn().tobytes()
    assert web.hosts == [f"images.internal:{web.port}"]


@pytest.mark.parametrize("listed", ["127.0.0.1:1", "127.0.0.2", "10.0.0.0/8", "[::1]", "::/0", "localhost"])
def test_a_listed_address_opens_no_other_one(network: Network, web: WebServer, listed: str, refused: Refusal) -> None:
    network.names["images.internal"] = [["127.0.0.1"]]
    loader = loader_for(f"images.internal:{web.port}", listed)
    refused(FORBIDDEN, load, loader, f"http://images.internal:{web.port}/x.png")
    assert network.connected == []


def test_localhost_needs_its_address_beside_it(web: WebServer, refused: Refusal) -> None:
    web.answers["/x.png"] = status(200, FILE)
    url = f"http://localhost:{web.port}/x.png"
    refused(FORBIDDEN, load, loader_for(f"localhost:{web.port}"), url)
    load(loader_for(f"localhost:{web.port}", "127.0.0.1"), url)


def test_a_network_allows_urls_with_an_address_in_it(network: Network, web: WebServer) -> None:
    web.answers["/x.png"] = status(200, FILE)
    load(loader_for(f"127.0.0.0/8:{web.port}"), f"{web.url}/x.png")


def test_of_several_addresses_only_the_allowed_ones_are_tried(network: Network, web: WebServer) -> None:
    web.answers["/x.png"] = status(200, FILE)
    network.names["example.org"] = [["10.0.0.1", "127.0.0.2", "127.0.0.1", "::1"]]
    load(loader_for(f"example.org:{web.port}", "127.0.0.1"), f"http://example.org:{web.port}/x.png")
    assert network.connected == ["127.0.0.1"]


def test_the_next_address_is_tried_where_one_refuses_and_the_one_that_answered_comes_first(
    network: Network, web: WebServer
) -> None:
    web.answers["/x.png"] = status(200, FILE, Connection="close")
    network.names["example.org"] = [["127.0.0.3", "127.0.0.4", "127.0.0.1"]]
    loader = loader_for(f"example.org:{web.port}", "127.0.0.0/8")
    for _ in range(2):
        load(loader, f"http://example.org:{web.port}/x.png")
    assert network.connected == ["127.0.0.3", "127.0.0.4", "127.0.0.1", "127.0.0.1"]
    assert network.asked == ["example.org"]


def test_a_name_that_changes_its_mind_is_not_followed_to_an_address_that_was_not_checked(
    network: Network, web: WebServer, inside: WebServer, monkeypatch: pytest.MonkeyPatch, refused: Refusal
) -> None:
    web.answers["/x.png"] = status(200, FILE, Connection="close")
    network.names["example.org"] = [["127.0.0.1"], ["127.0.0.2"]]
    loader = loader_for(f"example.org:{web.port}", "127.0.0.1")
    url = f"http://example.org:{web.port}/x.png"
    load(loader, url)
    load(loader, url)
    assert network.connected == ["127.0.0.1", "127.0.0.1"]
    monkeypatch.setattr("clip_operator.images.resolution.monotonic", lambda: time.monotonic() + 61)
    refused(FORBIDDEN, load, loader, url)
    assert network.asked == ["example.org", "example.org"]
    assert not inside.calls


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/x.png",
        "//127.0.0.2:{port}/x.png",
        "http://inside.example.org:{port}/x.png",
        "http://[::ffff:127.0.0.2]:{port}/x.png",
        "http://0x7f000002:{port}/x.png",
        "http://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/latest/meta-data/",
    ],
)
def test_a_redirect_leads_no_further_than_a_url(
    network: Network, web: WebServer, inside: WebServer, code: int, target: str, refused: Refusal
) -> None:
    network.names["images.example.org"] = [["127.0.0.1"]]
    network.names["inside.example.org"] = [["127.0.0.2"]]
    web.answers["/1"] = status(code, b"moved", Location=target.format(port=web.port))
    loader = loader_for(f"*.example.org:{web.port}", "127.0.0.1")
    refused(FORBIDDEN, load, loader, f"http://images.example.org:{web.port}/1")
    assert network.connected == ["127.0.0.1"]
    assert not inside.calls


@pytest.mark.parametrize(
    "host", [*SPELLINGS_OF_LOOPBACK.split(), *HOSTS_THAT_ONLY_LOOK_ALLOWED, *LETTERS_AND_DIGITS_OF_OTHER_SCRIPTS]
)
def test_no_spelling_of_a_host_gets_round_the_list(network: Network, host: str, refused: Refusal) -> None:
    loader = loader_for("images.example.org", "*.images.example.org", "10.0.0.0/8")
    for scheme in ("http", "HTTPS"):
        refused(FORBIDDEN, load, loader, f"{scheme}://{host}/x.png")
    assert network.asked == network.connected == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org\\@127.0.0.1/x.png",
        "http://example.org#@127.0.0.1/x.png",
        "http://example.org?@127.0.0.1/x.png",
        "http://example.org/@127.0.0.1/x.png",
        "http://example.org//127.0.0.1/x.png",
        "http://EXAMPLE.ORG./x.png",
        "http://%65xample.org/x.png",
    ],
)
def test_what_is_checked_is_what_is_connected_to(network: Network, url: str, refused: Refusal) -> None:
    network.names["example.org"] = network.names["example.org."] = [[PUBLIC]]
    refused(UNAVAILABLE, load, loader_for("example.org"), url)
    assert set(network.connected) == {PUBLIC}


def test_a_wildcard_covers_no_addresses(network: Network, refused: Refusal) -> None:
    network.names["a.b.org"] = [[PUBLIC]]
    refused(UNAVAILABLE, load, loader_for("*.org"), "http://a.b.org/x.png")
    refused(FORBIDDEN, load, loader_for("*.org"), "http://1.2.3.4/x.png")


def test_a_name_that_does_not_resolve_makes_the_image_unavailable(network: Network, refused: Refusal) -> None:
    long = ".".join(["a" * 70, "example.org"])
    loader = loader_for("*.example.org")
    for name in ("nowhere.example.org", long):
        assert "does not resolve" in refused(UNAVAILABLE, load, loader, f"http://{name}/x.png").detail
    assert network.asked.count("nowhere.example.org") == 1


def test_name_servers_that_do_not_answer_are_asked_again(
    network: Network, monkeypatch: pytest.MonkeyPatch, refused: Refusal
) -> None:
    asked: list[str] = []

    def nobody(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", nobody)
    refused(UNAVAILABLE, load, loader_for("example.org"), "http://example.org/x.png")
    assert asked == ["example.org"] * 4


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for images.example.org, which this process trusts, and its key in one file."""
    file = tmp_path / "certificate.pem"
    write_certificate(file, "images.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(file))
    return file


@pytest.fixture
def secure_web(certificate: Path) -> Iterator[WebServer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = WebServer(tls=tls)
    server.answers["/x.png"] = status(200, FILE)
    yield server
    server.close()


def test_over_https_the_certificate_must_be_for_the_name_and_not_for_the_address(
    network: Network, secure_web: WebServer, refused: Refusal
) -> None:
    port = secure_web.port
    for name in ("images.example.org", "images.example.org.", "other.example.org"):
        network.names[name] = [["127.0.0.1"]]
    loader = loader_for(f"*.example.org:{port}", f"127.0.0.1:{port}")
    load(loader, f"https://images.example.org:{port}/x.png")
    load(loader, f"https://images.example.org.:{port}/x.png")
    assert secure_web.hosts == [f"images.example.org:{port}"] * 2
    for host in ("other.example.org", "127.0.0.1"):
        assert "SSLError" in refused(UNAVAILABLE, load, loader, f"https://{host}:{port}/x.png").detail
    assert secure_web.calls["/x.png"] == 2
