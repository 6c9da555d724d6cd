"""Where webhooks may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import InvalidInput
from streams.settings import Settings
from streams.webhooks.addresses import parse_networks, refusal, refusal_of, target_of

PRIVATE = (
    "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1",
    "fc00::1", "fe80::1", "fe80::1%eth0", "::", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "192.0.2.1",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_not_public_is_refused(address: str, scheme: str) -> None:
    assert refusal(scheme, address, ()) is not None


def test_public_addresses_are_called_by_https_only_and_loopback_by_both() -> None:
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"):
        assert refusal("https", address, ()) is None
        assert "https" in (refusal("http", address, ()) or "")
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert refusal("http", address, ()) is None
        assert refusal("https", address, ()) is None


def test_a_setting_opens_networks() -> None:
    allowed = parse_networks("10.0.0.0/8, fd00::/8")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::5"):
        assert refusal("http", address, allowed) is None
    assert refusal("https", "192.168.1.1", allowed) is not None
    with pytest.raises(ValueError, match="10"):
        Settings(webhook_networks="10.0.0.0/33")


def test_a_url_is_taken_apart() -> None:
    target = target_of("https://Hooks.Example:8443/a/b?token=x#fragment")
    assert (target.scheme, target.host, target.port, target.path) == ("https", "hooks.example", 8443, "/a/b?token=x")
    assert target.origin == "https://hooks.example:8443"
    assert target.shown == "https://hooks.example:8443/a/b"
    assert target_of("http://[::1]").origin == "http://[::1]"
    assert target_of("https://x:443").origin == target_of("https://x").origin == "https://x"


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://x/", "https://", "https://u:p@x/", "https://x:99999/", "https://x/\r\nhost: y", "https://x/ y", "https://ä/",
            "https://[::1", "file:///etc/passwd", "https://x/" + "a" * 5000],
)  # fmt: skip
def test_what_is_no_url_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        target_of(url)
    assert refused.value.code == "webhook.url-invalid"


@pytest.mark.parametrize(
    "url",
    ["https://10.0.0.1/", "http://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://[::ffff:10.0.0.1]/", "http://93.184.216.34/",
     "http://billing:8080/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://169.254.43518/"],
)  # fmt: skip
def test_what_no_call_could_reach_is_known_before_it_is_made(url: str) -> None:
    assert refusal_of(target_of(url), ()) is not None


@pytest.mark.parametrize(
    "url",
    ["https://billing.example.com/", "https://93.184.216.34/", "http://127.0.0.1:9/", "http://[::1]/", "http://localhost/", "https://x1/"],
)
def test_what_may_be_reached_is_seen_when_it_is_called(url: str) -> None:
    assert refusal_of(target_of(url), ()) is None


def test_where_networks_are_open_a_name_may_lead_there_by_http() -> None:
    allowed = parse_networks("10.0.0.0/8")
    assert refusal_of(target_of("http://billing:8080/"), allowed) is None
    assert refusal_of(target_of("http://10.1.2.3/"), allowed) is None
    assert refusal_of(target_of("http://192.168.1.1/"), allowed) is not None


def test_what_webhooks_may_reach_is_as_set_here_or_as_the_running_product_has_it(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).webhook_allowed() == ()
    (tmp_path / "run.json").write_text('{"webhook_networks": "10.0.0.0/8"}')
    assert Settings(data_dir=tmp_path).webhook_allowed() == parse_networks("10.0.0.0/8")
    assert Settings(data_dir=tmp_path, webhook_networks="fd00::/8").webhook_allowed() == parse_networks("fd00::/8")
