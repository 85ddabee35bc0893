"""WireGuard by wireguard-go: both ends in user space, on a kernel with WireGuard or without."""

from __future__ import annotations

import os
from typing import Final

from tests.proof.tunnels.tunnel import Tunnel, until

PORT: Final = 51820
INTERFACE: Final = "wg0"
AGAIN: Final = ("stopped hearing back", "Handshake did not complete")
"""Of a handshake that is no renewal in time."""


class WireGuard(Tunnel):
    kind = "WireGuard"
    services = ("wireguard",)

    def begin(self) -> None:
        keys = self._keys = {side: self._key(side) for side in ("near", "far")}
        for side, other in (("far", "near"), ("near", "far")):
            self.launch(side, ["wireguard-go", "-f", INTERFACE], env=os.environ | {"LOG_LEVEL": "verbose"})
            namespace = self.host(side)
            until((self.run_of(side) / "wireguard" / f"{INTERFACE}.sock").exists, "wireguard-go")
            command = [
                "wg",
                "set",
                INTERFACE,
                "listen-port",
                str(PORT),
                "private-key",
                f"{self.directory}/{side}.key",
            ]
            command += ["peer", keys[other], "allowed-ips", "0.0.0.0/0"]
            if side == "near":
                command += ["endpoint", f"[{self.plan.far}]:{PORT}"]
            self.ask(side, command)
            own = self.plan.inside[0 if side == "near" else 1]
            namespace.bring_up(INTERFACE, f"{own}/30")

    def handshakes(self) -> int:
        """Keys are renewed after two minutes. Any other handshake is one that an end begins because it hears
        nothing, and says so."""
        logs = self.log("near") + self.log("far")
        return sum(logs.count(each) for each in AGAIN) + ("Received handshake response" in logs)

    def last_handshake(self) -> str:
        lines = [f"{side}: {line}" for side in ("near", "far") for line in self.log(side).splitlines()]
        return "; ".join([line for line in lines if any(each in line for each in AGAIN)][-2:])

    def address_changed(self) -> None:
        """wireguard-go keeps the source address that the far end has answered to. It forgets it where the kernel
        says EINVAL, and newer kernels say ENETUNREACH of an address that is gone."""
        command = ["wg", "set", INTERFACE, "peer", self._keys["far"], "endpoint", f"[{self.plan.far}]:{PORT}"]
        self.ask("near", command)

    def far_sees(self) -> str:
        """The customer's address as the far end knows it."""
        return self.ask("far", ["wg", "show", INTERFACE, "endpoints"]).stdout

    def _key(self, side: str) -> str:
        """The private key into a file; the public one."""
        private = self.host(side).run(["wg", "genkey"]).stdout
        (self.directory / f"{side}.key").write_text(private)
        return self.host(side).run(["wg", "pubkey"], input=private).stdout.strip()
