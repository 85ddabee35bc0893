"""IKEv2 by strongSwan: UDP encapsulation (RFC 3948), and MOBIKE (RFC 4555) where the customer's address changes.

ESP is done in user space (kernel-libipsec), so the kernel needs none. Certificates are left out: a shared key
proves the ends as well.
"""

from __future__ import annotations

import os
from typing import Final

from tests.proof.tunnels.tunnel import Tunnel, until

_PLUGINS: Final = (
    "aes sha1 sha2 hmac kdf drbg nonce random gmp pem pkcs1 pubkey x509 "
    "kernel-libipsec kernel-netlink socket-default vici updown"
)  # fmt: skip
_STRONGSWAN: Final = """\
charon-systemd {{
  load = {plugins}
  # A route of ours; charon's own would hide the host's addresses from it.
  install_routes = yes
  retransmit_timeout = 1.0
  retransmit_base = 1.2
  retransmit_tries = 30
  keep_alive = {keep_alive}
  plugins {{
    vici {{ socket = unix://{socket} }}
    kernel-libipsec {{ allow_peer_ts = yes }}
  }}
  filelog {{ stderr {{ default = 1 }} }}
}}
swanctl {{ load = pem pkcs1 x509 pubkey random }}
"""
_CONNECTION: Final = """\
connections {{
  tunnel {{
    version = 2
    {addresses}
    encap = yes
    mobike = yes
    proposals = aes128-sha256-modp2048
    local {{ auth = psk
      id = {own} }}
    remote {{ auth = psk
      id = {other} }}
    children {{ net {{
      local_ts = {inside}/32
      remote_ts = {other_inside}/32
      esp_proposals = aes128-sha256
    }} }}
  }}
}}
secrets {{ ike-1 {{ secret = "of the proof alone" }} }}
"""
KEEP_ALIVE_S: Final = 20


class IkeV2(Tunnel):
    kind = "IKEv2, UDP encapsulation"
    services = ("ipsec",)
    keep_alive_s = KEEP_ALIVE_S

    def begin(self) -> None:
        for side in ("far", "near"):
            own, other = ("near", "far") if side == "near" else ("far", "near")
            inside, other_inside = self.plan.inside[:: 1 if side == "near" else -1]
            addresses = f"remote_addrs = {self.plan.far}" if side == "near" else f"local_addrs = {self.plan.far}"
            self.host(side).bring_up("lo", f"{inside}/32")
            socket = self.directory / f"{side}.vici"
            (self.directory / f"{side}.conf").write_text(
                _STRONGSWAN.format(plugins=_PLUGINS, keep_alive=f"{self.keep_alive_s}s", socket=socket)
            )
            (self.directory / f"{side}.swanctl").write_text(
                _CONNECTION.format(
                    addresses=addresses, own=own, other=other, inside=inside, other_inside=other_inside
                )
            )
            environment = os.environ | {"STRONGSWAN_CONF": str(self.directory / f"{side}.conf")}
            self.launch(side, ["charon-systemd"], env=environment)
            until(socket.exists, f"charon at the {side} end")
            self._swanctl(side, "--load-all", "--file", f"{self.directory}/{side}.swanctl", "--noprompt")
        # Not waited for: under `reject` it does not come up.
        self.initiate()

    def initiate(self) -> None:
        self._swanctl("near", "--initiate", "--child", "net", "--timeout", "-1", check=False)

    def handshakes(self) -> int:
        return self.log("near").count("] established between")

    def address_changed(self) -> None:
        """charon finds out by itself."""

    def far_sees(self) -> str:
        """The security association at the far end, with the customer's address."""
        return self._swanctl("far", "--list-sas")

    def _swanctl(self, side: str, *arguments: str, check: bool = True) -> str:
        environment = ["env", f"STRONGSWAN_CONF={self.directory}/{side}.conf"]
        uri = ["--uri", f"unix://{self.directory}/{side}.vici"]
        return self.ask(side, [*environment, "swanctl", *arguments, *uri], check=check).stdout
