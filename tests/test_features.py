"""What a backend declares to know, and calls that need more."""

from typing import Any

import pytest

import cropkit
from cropkit import Request, _backends
from tests.support.constant import Constant, call_on, value


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as if the environment named no backend."""
    monkeypatch.delenv("CROPKIT_BACKEND", raising=False)


def test_an_undeclared_feature_is_refused_by_its_name() -> None:
    """And before the backend is asked, which may not know what it would be asked about."""

    class Old(Constant):
        asked = 0

        def refuses(self, request: Request) -> str | None:
            self.asked += 1
            return None

    class New(Old):
        features = frozenset({"mirrors", "echoes"})

    old, new = Old(3), New(5)
    call = call_on(features={"echoes"})
    with pytest.raises(cropkit.BackendError, match="does not declare the feature 'echoes', which"):
        _backends.choose(call, old)
    assert not old.asked
    assert _backends.choose(call, new) is new
    assert new.asked
    with pytest.raises(cropkit.BackendError, match="does not declare the feature 'shadows'"):
        _backends.choose(call_on(features={"echoes", "shadows"}), new)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_what_nobody_declares_runs_nowhere(name: str) -> None:
    with pytest.raises(cropkit.BackendError, match="does not declare the feature 'unheard of'"):
        _backends.choose(call_on(features={"unheard of"}), name)


@pytest.mark.parametrize("features", [{"echoes"}, "echoes", frozenset({1})])
def test_features_are_a_frozenset_of_names(features: Any) -> None:
    backend = Constant(1)
    backend.features = features  # type: ignore[attr-defined]
    with pytest.raises(cropkit.BackendError, match=r"has features .* a frozenset of str"):
        value(backend)


def test_features_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {info.name: info.features for info in cropkit.list_backends()}["cpu"] == ()


def test_requests_are_made_by_name_only() -> None:
    """A field that a later release adds can then take no other's place."""
    with pytest.raises(TypeError, match="positional"):
        Request("crop_and_resize", cropkit.Sampling(), (1, 2, 2, 1))  # type: ignore[misc, call-arg]
    with pytest.raises(TypeError, match="positional"):
        cropkit.Sampling("nearest")  # type: ignore[misc]
