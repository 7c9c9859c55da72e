"""What lets others in is left out of what is shown and kept."""

import pytest

from hrnet_cli.redaction import shown_address, shown_command


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:hush@cam:554/1?x=1", "rtsp://cam:554/1?x=1"),
        ("rtsp://admin:p@hush@cam/1", "rtsp://cam/1"),
        ("rtsp://hush@cam", "rtsp://cam"),
        ("rtsp://me:hu#sh?@cam/1", "rtsp://cam/1"),
        ("http://cam/1?at=me@home", "http://cam/1?at=me@home"),
        ("http://cam/?usr=a&pwd=hush#1", "http://cam/?usr=a&pwd=***#1"),
        ("http://cam/?loginuse=a&loginpas=hush", "http://cam/?loginuse=a&loginpas=***"),
        ("https://host/x.m3u8?Access-Token=hush;n=2", "https://host/x.m3u8?Access-Token=***;n=2"),
        ("srt://host:90?passphrase=hush", "srt://host:90?passphrase=***"),
        ("https://s3/x?X-Amz-Signature=hush&a=1", "https://s3/x?X-Amz-Signature=***&a=1"),
        ("rtsp://cam/user=a_password=hush_channel=1", "rtsp://cam/user=a_password=***"),
        # No addresses.
        ("run/password=1.mp4", "run/password=1.mp4"),
        ("camera:me@home", "camera:me@home"),
    ],
)
def test_addresses_are_shown_without_secrets(address, shown):
    assert shown_address(address) == shown


def test_a_command_is_kept_without_secrets_and_can_be_repeated():
    words = [
        "detect",
        "rtsp://me:hu sh@cam/1",
        "a b.mp4",
        "--data=https://me:hush@host/d.zip?key=hush",
    ]
    assert shown_command(words) == (
        "hrnet detect rtsp://cam/1 'a b.mp4' '--data=https://host/d.zip?key=***'"
    )
