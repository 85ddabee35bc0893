"""Whom we share a secret with, by the address that a datagram comes from; and how each NAS is to be understood.

A client is what sends to us: a NAS, or a proxy with many behind it. A NAS is known by what it calls itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gatewayd.model.accounting import NasProfile
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.settings.subscribers import ProfileSettings, RadiusClient, SubscriberSettings
from gatewayd.subscribers.radius.accounting import ANYTHING, Permission
from gatewayd.subscribers.sessions.session import Terms

MAX_NAS_REMEMBERED: Final = 10_000

_IPV4_IN_IPV6: Final = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Client:
    """Who may send from `prefix`. `secrets`: in the order in which they are tried; without any, nothing from there
    is believed. Its repr leaves them out. `is_proxy`: the NAS behind it may come by another one. `profile`: of
    every NAS behind it that has none of its own; None: the usual one.
    """

    prefix: Prefix
    secrets: tuple[bytes, ...] = field(repr=False)
    require_message_authenticator: bool = False
    response_message_authenticator: bool = False
    is_proxy: bool = False
    profile: ProfileSettings | None = None
    permission: Permission = ANYTHING


def client_of(settings: RadiusClient, secrets: tuple[bytes, ...]) -> Client:
    """The client that is configured so, with what was read from its file."""
    return Client(
        prefix=settings.address,
        secrets=secrets,
        require_message_authenticator=settings.require_message_authenticator,
        response_message_authenticator=settings.response_message_authenticator,
        is_proxy=settings.proxy,
        profile=settings.profile,
        permission=Permission(frozenset(settings.nas), settings.addresses, settings.require_event_timestamp),
    )


def plain_source(source: bytes) -> bytes:
    """A packed address, with IPv4 that came in by an IPv6 socket (::ffff:a.b.c.d, RFC 4291 §2.5.5.2) as IPv4."""
    return source[12:] if len(source) == 16 and source.startswith(_IPV4_IN_IPV6) else source


class ClientTable:
    """Clients by prefix. The longest prefix wins; of two clients with the same, the later."""

    def __init__(self, clients: Iterable[Client]) -> None:
        tables: dict[tuple[int, int], dict[bytes, Client]] = {}
        for client in clients:
            prefix = client.prefix
            tables.setdefault((len(prefix.packed), prefix.length), {})[prefix.packed] = client
        self.prefixes = tuple(Prefix(packed, length) for (_, length), found in tables.items() for packed in found)
        self._tables = sorted(tables.items(), key=lambda item: item[0], reverse=True)

    def find(self, source: bytes) -> Client | None:
        """Of a packed address, as the socket has it. None for a stranger."""
        address = plain_source(source)
        for (width, length), clients in self._tables:
            if width == len(address) and (client := clients.get(mask_address(address, length))) is not None:
                return client
        return None


def terms_of_profile(profile: ProfileSettings) -> Terms:
    interval_s = profile.interim_interval_s
    return Terms(
        interim_s=None if interval_s is None else int(interval_s),
        missed_interims=float(profile.missed_interims),
        min_session_timeout_s=profile.min_session_timeout_s,
        session_timeout_s=profile.session_timeout_s,
        restart_grace_s=profile.restart_grace_s,
        single_session=profile.single_session,
    )


@dataclass(frozen=True, slots=True)
class _Manner:
    """A profile as its two users want it."""

    profile: NasProfile
    terms: Terms


class Profiles:
    """How a NAS reports its sessions, and how long it is believed: by its own profile, else by that of the client
    through which it came last, else by the usual one.

    The table of sessions knows a NAS by its name alone, so what each came by is remembered, of `max_nas` at most.
    The NAS that reported longest ago is forgotten first, and has the usual terms until its next record. So has each
    NAS after a restart or reload.
    """

    def __init__(
        self,
        usual: ProfileSettings,
        by_nas: Mapping[str, ProfileSettings] | None = None,
        *,
        max_nas: int = MAX_NAS_REMEMBERED,
    ) -> None:
        self._manners: dict[ProfileSettings, _Manner] = {}
        self._usual = self._manner_of(usual)
        self._by_nas = {name: self._manner_of(profile) for name, profile in (by_nas or {}).items()}
        self._most_nas = max_nas
        self._by_client: OrderedDict[str, _Manner] = OrderedDict()
        """Those that have no profile of their own and came by a client with one; the last that reported, last."""

    def profile_of(self, client: Client, nas_name: str) -> NasProfile:
        """Of a NAS that comes through `client`."""
        own = self._by_nas.get(nas_name)
        if own is not None:
            return own.profile
        return (self._usual if client.profile is None else self._manner_of(client.profile)).profile

    def remember(self, client: Client, nas_name: str) -> None:
        """The NAS came through `client` just now, in a request that was verified and is of use: any other name may
        be invented, and would be remembered."""
        if nas_name in self._by_nas:
            return
        self._by_client.pop(nas_name, None)
        if client.profile is None:
            return
        self._by_client[nas_name] = self._manner_of(client.profile)
        if len(self._by_client) > self._most_nas:
            self._by_client.popitem(last=False)

    def profile_by_name(self, nas_name: str) -> NasProfile:
        """Of a NAS that another reports."""
        return (self._by_nas.get(nas_name) or self._usual).profile

    def terms_of(self, nas_name: str) -> Terms:
        """For the table of sessions."""
        return (self._by_nas.get(nas_name) or self._by_client.get(nas_name) or self._usual).terms

    def _manner_of(self, profile: ProfileSettings) -> _Manner:
        """Made once for each profile; there are as many as the configuration has."""
        manner = self._manners.get(profile)
        if manner is None:
            manner = self._manners[profile] = _Manner(profile.nas_profile, terms_of_profile(profile))
        return manner


def profiles_of(settings: SubscriberSettings) -> Profiles:
    """The usual profile, and those of the NAS that are named."""
    return Profiles(settings.profile, {nas.name: nas.profile for nas in settings.nas})
