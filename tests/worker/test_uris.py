"""``s3://`` URIs, and the prefixes that requests must stay below."""

import pytest

from worker.errors import ErrorCode, Reject
from worker.uris import check_allowed, overlap, split


def _check(uri: str, prefixes: tuple[str, ...]) -> None:
    """Checks a reference as a request's is checked, before any call to storage."""
    split(uri)
    check_allowed(uri, prefixes)


def _refused(uri: str, prefixes: tuple[str, ...]) -> Reject:
    with pytest.raises(Reject) as caught:
        _check(uri, prefixes)
    return caught.value


@pytest.mark.parametrize("prefix", ["s3://shelter", "s3://shelter/", "s3://shelter/in", "s3://shelter/in/"])
def test_a_uri_below_a_prefix_is_allowed(prefix: str) -> None:
    """With and without a slash at the end of the prefix."""
    for uri in ("s3://shelter/in/a.jpg", "s3://shelter/in/deep/er/a b+c%20é.jpg"):
        _check(uri, (prefix,))


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://shelter", "s3://shelter-evil/a.jpg"),
        ("s3://shelter", "s3://shelter.evil/a.jpg"),
        ("s3://shelter/", "s3://shelter-evil/a.jpg"),
        ("s3://shelter/in", "s3://shelter/inside/a.jpg"),
        ("s3://shelter/in/", "s3://shelter/in-evil/a.jpg"),
        ("s3://shelter/in", "s3://shelter/a.jpg"),
        ("s3://shelter/in", "s3://shelter/IN/a.jpg"),
        ("s3://shelter/in", "s3://shelter//in/a.jpg"),
        ("s3://shelter/in", "s3://evil/s3://shelter/in/a.jpg"),
        ("s3://shelter/in", "s3://shelter/out?x=s3://shelter/in/a.jpg"),
    ],
)
def test_a_uri_that_only_begins_like_a_prefix_is_not_allowed(prefix: str, uri: str) -> None:
    """A prefix ends where a segment ends."""
    assert _refused(uri, (prefix,)).code is ErrorCode.NOT_ALLOWED


@pytest.mark.parametrize(
    "uri",
    [
        "s3://shelter/in/../secret/a.jpg",
        "s3://shelter/in/..",
        "s3://shelter/in/./../../evil/a.jpg",
        "s3://shelter/in/x/../../../evil/a.jpg",
    ],
)
def test_a_reference_with_dot_segments_is_not_allowed(uri: str) -> None:
    """S3 takes dots literally, but a proxy or another S3-compatible server may leave the prefix by them."""
    assert _refused(uri, ("s3://shelter/in",)).code is ErrorCode.NOT_ALLOWED


#: What does not name an object in a bucket: addresses of cloud metadata in every spelling, local addresses, files, user
#: names, ports and hosts in place of a bucket, other schemes, line breaks.
FORMLESS = [
    "",
    " ",
    "a.jpg",
    "/etc/passwd",
    "../../etc/passwd",
    "C:\\Windows\\win.ini",
    "\\\\evil\\share\\a.jpg",
    "//evil/a.jpg",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://169.254.169.254/",
    "http://2852039166/latest/meta-data/",
    "http://0xA9FEA9FE/latest/meta-data/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://169.254.169.254.nip.io/",
    "http://metadata.google.internal/",
    "http://169.254.170.2/v2/credentials",
    "http://localhost:4566/shelter/a.jpg",
    "http://127.1/",
    "http://0/",
    "http://[::1]/",
    "http://shelter.s3.amazonaws.com/in/a.jpg",
    "https://s3://shelter/in/a.jpg",
    "file:///etc/passwd",
    "file://shelter/in/a.jpg",
    "ftp://shelter/in/a.jpg",
    "gopher://127.0.0.1:6379/_INFO",
    "data:image/png;base64,iVBORw0KGgo=",
    "jar:s3://shelter/in/a.jpg",
    "gs://shelter/in/a.jpg",
    "s3a://shelter/in/a.jpg",
    "s3:shelter/in/a.jpg",
    "s3:/shelter/in/a.jpg",
    "s3:///shelter/in/a.jpg",
    "s3://",
    "s3://shelter",
    "s3://shelter/",
    "S3://shelter/in/a.jpg",
    " s3://shelter/in/a.jpg",
    "s3://SHELTER/in/a.jpg",
    "s3://user@shelter/in/a.jpg",
    "s3://user:password@shelter/in/a.jpg",
    "s3://shelter@evil/in/a.jpg",
    "s3://shelter:80/in/a.jpg",
    "s3://shelter#@evil/in/a.jpg",
    "s3://shelter?@evil/in/a.jpg",
    "s3://shelter\\@evil/in/a.jpg",
    "s3://shelter%2f@evil/in/a.jpg",
    "s3://shelter%00/in/a.jpg",
    "s3://shelter\n/in/a.jpg",
    "s3://shelter\r\nHost: evil/in/a.jpg",
    "s3://shelter\x00.evil/in/a.jpg",
    "s3://[::1]/in/a.jpg",
    "s3://../in/a.jpg",
    "s3://./in/a.jpg",
    "s3://\u0455helter/in/a.jpg",
    "s3://\uff53helter/in/a.jpg",
    "s3://shelter\u2044in/a.jpg",
    "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/evil/in/a.jpg",
]
#: What could name a bucket, but not an allowed one.
ELSEWHERE = [
    "s3://169.254.169.254/latest/meta-data/",
    "s3://127.0.0.1/in/a.jpg",
    "s3://2852039166/latest/meta-data/",
    "s3://0xa9fea9fe/latest/meta-data/",
    "s3://localhost/in/a.jpg",
    "s3://evil/in/a.jpg",
    "s3://169.254.170.2/in/a.jpg",
    "s3://xn--helter-6of/in/a.jpg",
]


@pytest.mark.parametrize("uri", FORMLESS)
def test_a_reference_that_is_not_a_bucket_and_a_key_is_refused(uri: str) -> None:
    """Whatever is allowed, and before any call."""
    refusal = _refused(uri, ("s3://shelter/in/", "s3://shelter/models", uri))
    assert refusal.code is ErrorCode.BAD_SOURCE_REF
    assert len(refusal.message) < 400


@pytest.mark.parametrize("uri", ELSEWHERE)
def test_another_bucket_is_not_allowed(uri: str) -> None:
    """Before any call."""
    assert _refused(uri, ("s3://shelter/in/", "s3://shelter/models")).code is ErrorCode.NOT_ALLOWED


def test_without_prefixes_nothing_is_allowed() -> None:
    """An empty list does not mean everything."""
    assert _refused("s3://shelter/in/a.jpg", ()).code is ErrorCode.NOT_ALLOWED


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("s3://shelter/models", "s3://shelter/models/", True),
        ("s3://shelter/models/pets", "s3://shelter/models/", True),
        ("s3://shelter", "s3://shelter/models/", True),
        ("s3://shelter/models", "s3://shelter/models-out", False),
        ("s3://shelter/models", "s3://shelter/out", False),
        ("s3://shelter", "s3://shelter-models", False),
    ],
)
def test_prefixes_overlap_where_one_is_inside_the_other(one: str, other: str, *, expected: bool) -> None:
    """Whichever is named first."""
    assert (overlap(one, other), overlap(other, one)) == (expected, expected)
