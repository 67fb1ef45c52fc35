"""The emulator of these tests."""

import pytest


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str:
    """One emulator, unless a test is about what storage guarantees."""
    url: str = request.getfixturevalue(getattr(request, "param", "ministack"))
    return url
