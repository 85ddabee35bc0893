"""OpenVPN of the distribution: over UDP and TCP with TLS, and over UDP with a static key."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from tests.proof.tunnels.tunnel import Tunnel

PORT: Final = 1194
_COMMON: Final = (
    "--dev", "tun0", "--dev-type", "tun", "--disable-dco", "--verb", "3", "--persist-tun", "--persist-key",
    "--cipher", "AES-256-CBC", "--data-ciphers", "AES-256-GCM", "--auth-nocache", "--connect-retry", "1", "2",
)  # fmt: skip


class _OpenVpn(Tunnel):
    services = ("openvpn",)
    transport = "udp"

    def begin(self) -> None:
        suffix = "6" if self.plan.family == 6 else "4"
        for side in ("far", "near"):
            own, peer = self.plan.inside[:: 1 if side == "near" else -1]
            command = ["openvpn", *_COMMON, "--ifconfig", own, peer, *self.security(side)]
            protocol = self.transport + suffix
            if side == "near":
                command += ["--remote", self.plan.far, str(PORT), "--nobind"]
                command += ["--proto", protocol + ("-client" if self.transport == "tcp" else "")]
            else:
                command += ["--local", self.plan.far, "--port", str(PORT)]
                command += ["--proto", protocol + ("-server" if self.transport == "tcp" else "")]
                command += ["--float"] if self.transport == "udp" else []
            self.launch(side, command)

    def security(self, side: str) -> list[str]:
        """TLS without an authority: each end knows the other's certificate."""
        prints = {each: self._fingerprint(each) for each in ("near", "far")}
        role = ["--tls-client"] if side == "near" else ["--tls-server", "--dh", "none"]
        certificate = ["--cert", f"{self.directory}/{side}.pem", "--key", f"{self.directory}/{side}.key"]
        return [*role, *certificate, "--peer-fingerprint", prints["far" if side == "near" else "near"]]

    def handshakes(self) -> int | None:
        return self.log("near").count("Initialization Sequence Completed")

    def _fingerprint(self, side: str) -> str:
        certificate = self.directory / f"{side}.pem"
        if not certificate.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "30", "-subj", f"/CN={side}", "-keyout", f"{self.directory}/{side}.key", "-out",
                 str(certificate)], check=True, capture_output=True,
            )  # fmt: skip
        shown = subprocess.run(
            ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        found = re.search(r"=([0-9A-F:]+)", shown)
        assert found is not None
        return found[1]


class OpenVpnTls(_OpenVpn):
    kind = "OpenVPN over UDP, TLS"


class OpenVpnTcp(_OpenVpn):
    kind = "OpenVPN over TCP, TLS"
    transport = "tcp"


class OpenVpnStatic(_OpenVpn):
    """Both ends know one key: there is no handshake."""

    kind = "OpenVPN over UDP, static key"

    def security(self, side: str) -> list[str]:
        key = self.directory / "static.key"
        if not key.exists():
            subprocess.run(["openvpn", "--genkey", "secret", str(key)], check=True, capture_output=True)
        return ["--secret", str(key)]

    def handshakes(self) -> None:
        return None
