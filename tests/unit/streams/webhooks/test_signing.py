"""Signatures, against the example that the Standard Webhooks reference libraries test themselves with."""

from __future__ import annotations

import pytest

from streams.settings import Settings
from streams.webhooks.signing import keys_of, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_example() -> None:
    signed = signature(keys_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_several_secrets_sign_side_by_side() -> None:
    both = signature(keys_of(f"plain {SECRET}"), "id", 1, b"x").split(" ")
    assert both == [signature(keys_of("plain"), "id", 1, b"x"), signature(keys_of(SECRET), "id", 1, b"x")]
    assert keys_of("plain") == (b"plain",)
    assert keys_of("") == ()


def test_a_secret_that_is_no_base64_is_refused_when_settings_are_read() -> None:
    with pytest.raises(ValueError, match="base64"):
        Settings(webhook_secret="whsec_?")  # type: ignore[arg-type]  # pydantic takes the text
