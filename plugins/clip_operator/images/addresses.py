"""Which network addresses lead to the public internet, and which to where only this machine can go."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = ip_network("2000::/3")  # all of IPv6 that is routed between networks; the rest is reserved or local
_NAT64 = ip_network("64:ff9b::/96")  # how a host without IPv4 reaches an IPv4 address, which is in the last 32 bits

# What `is_global` lets pass, in some versions of Python or in all, and what is none the less no image host.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # a public number, under which Azure's machines reach the platform that runs them
            "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata service has had an address in it
            "192.88.99.0/24",  # relays of 6to4
            "2002::/16",  # 6to4: IPv4 in IPv6, private addresses, too
            "3fff::/20",  # documentation
        ),
    )
)


def address_of(text: str) -> Address | None:
    """Return the address that a text spells in the usual form, or None.

    An IPv4-mapped address (``::ffff:10.1.2.3``) is the IPv4 address that a connection to it would reach. An address
    with a zone (``fe80::1%eth0``) is none: it means something else on every machine.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        return None
    return address.ipv4_mapped or address


def is_public(address: Address) -> bool:
    """Tell whether an address is the same host wherever one asks, and no tunnel to another address."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOT_PUBLIC)
