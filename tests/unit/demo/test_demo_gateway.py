from __future__ import annotations

from pathlib import Path
from typing import Any

from gatewayd.demo.gateway import DemoGateway
from gatewayd.settings import SourceSettings, read_settings

URL = "http://198.19.255.6:8080/notification.jws"


def test_the_demo_has_one_signed_source_and_nothing_of_the_host(tmp_path: Path) -> None:
    namespace: Any = None
    gateway = DemoGateway(namespace, tmp_path)
    gateway.write_config("reject", url=URL, key=tmp_path / "national.pub")
    settings = read_settings(gateway.config_path)
    assert settings.registry.sources == (
        SourceSettings("national", URL, keys=(str(tmp_path / "national.pub"),), allow_unsigned=False),
    )
    assert settings.registry.sources[0].is_signed
    assert settings.registry.local is None
    assert settings.policy.mode == "reject"
    assert settings.state_dir == str(tmp_path)
