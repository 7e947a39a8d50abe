"""What claims mean: ids that nobody shares, names for people, and never more than the settings grant."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bobrai.access import refusals
from bobrai.access.claims import MAX_NAME, ClaimsReader, found, principal_id, values
from bobrai.domain.access import Grant, Scope
from bobrai.domain.errors import CredentialRefused
from bobrai.settings.oidc import IssuerSettings

ROLES = [
    {"value": "media", "scopes": ["tasks:submit", "tasks:read"], "queues": ["media-*"], "own_tasks": True},
    {"value": "operator", "scopes": ["queues:control"]},
    {"value": "root", "scopes": ["admin"]},
]
GRANTS = {
    "media": Grant.of(["tasks:submit", "tasks:read"], queues=["media-*"], own_tasks=True),
    "operator": Grant.of(["queues:control"]),
    "root": Grant.of(["admin"]),
}


def reader(**changes: Any) -> ClaimsReader:
    """A reader of an issuer with three roles and no default."""
    settings = {"name": "idp", "issuer": "https://id.example", "audiences": ["bobrai"], "roles": ROLES}
    return ClaimsReader(IssuerSettings.model_validate(settings | changes))


@pytest.mark.parametrize(
    ("scope_claim", "claims"),
    [
        ("scope", {"scope": "openid operator email"}),
        ("scp", {"scp": ["openid", "operator"]}),
        ("groups", {"groups": ["operator"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "operator"]}}),
        ("resource_access.my.client.roles", {"resource_access": {"my.client": {"roles": ["operator"]}}}),
        ("https://bobrai.example/roles", {"https://bobrai.example/roles": ["operator"]}),
    ],
)
def test_roles_are_found_where_providers_put_them(scope_claim: str, claims: dict[str, Any]) -> None:
    assert reader(scope_claim=scope_claim).grant(claims) == GRANTS["operator"]


def test_of_several_roles_the_first_of_the_settings_counts_and_they_are_not_joined() -> None:
    assert reader().grant({"scope": "root operator media"}) == GRANTS["media"]
    assert reader().grant({"scope": ["root", "operator"]}) == GRANTS["operator"]


@pytest.mark.parametrize(
    "claim",
    ["", "Operator", "operators", "oper ator", "operator,root", ["operator root"], [["operator"]], [1, None, True],
     {"operator": True}, {"roles": ["operator"]}, 1, True, None],
)  # fmt: skip
def test_what_only_looks_like_a_role_grants_nothing(claim: object) -> None:
    assert reader().grant({"scope": claim}) is None
    with pytest.raises(CredentialRefused) as caught:
        reader().principal({"sub": "x", "scope": claim})
    assert caught.value.reason == refusals.CLAIMS


def test_the_default_is_for_tokens_without_a_role() -> None:
    default = reader(default={"scopes": ["tasks:read"], "own_tasks": True})
    assert default.grant({}) == Grant.of(["tasks:read"], own_tasks=True)
    assert default.grant({"scope": "root"}) == GRANTS["root"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from([*GRANTS, "root operator", "openid"])
    | st.text("aot ,.", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["roles", "realm_access", "realm_access.roles", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(claims=st.dictionaries(st.sampled_from(["realm_access", "realm_access.roles", "roles", "scope"]), json_values))
def test_no_claims_grant_more_than_one_role_whose_value_they_have(claims: dict[str, Any]) -> None:
    grant = reader(scope_claim="realm_access.roles").grant(claims)
    held = [GRANTS[value] for value in GRANTS if value in values(found(claims, "realm_access.roles"))]
    assert grant == (held[0] if held else None)
    if not any(value in repr(claims) for value in GRANTS):
        assert grant is None


@given(
    subjects=st.sets(
        st.text("aB:. \n\u00e4\u202e\ud800", min_size=1) | st.from_regex(r"sha256:[0-9a-f]{1,3}", fullmatch=True),
        min_size=2,
    )
)
def test_no_two_subjects_have_the_same_id(subjects: set[str]) -> None:
    ids = {principal_id("idp", subject) for subject in subjects}
    assert len(ids) == len(subjects)
    assert all(each.isascii() and each.isprintable() and len(each) <= 250 for each in ids)


def test_nobody_is_called_as_anothers_digest() -> None:
    hashed = principal_id("idp", "ä").removeprefix("oidc:idp:")
    assert hashed.startswith("sha256:")
    assert principal_id("idp", hashed) != principal_id("idp", "ä")


def test_readable_subjects_stay_readable_and_issuers_apart() -> None:
    assert principal_id("idp", "cn=ada, ou=it") == "oidc:idp:cn=ada, ou=it"
    assert principal_id("a", "b:c") != principal_id("a.b", "c")
    assert principal_id("idp", "x" * 201).startswith("oidc:idp:sha256:")


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "ada", "email": "ada@example.com"}, "ada"),
        ({"preferred_username": " ", "email": "ada@example.com"}, "ada@example.com"),
        ({"preferred_username": "ada\n", "email": ["x"]}, "b5a1"),
        ({"preferred_username": "‮ada"}, "b5a1"),
        ({"preferred_username": "Åsa Ø."}, "Åsa Ø."),
        ({"preferred_username": "x" * 500}, "x" * MAX_NAME),
        ({}, "b5a1"),
    ],
)
def test_names_are_for_people(claims: dict[str, Any], name: str) -> None:
    assert reader().principal({"sub": "b5a1", "scope": "operator", **claims}).name == name


def test_every_scope_can_be_granted() -> None:
    roles = [{"value": str(scope), "scopes": [str(scope)]} for scope in Scope]
    for scope in Scope:
        grant = reader(roles=roles).grant({"scope": f"openid {scope}"})
        assert grant == Grant.of([scope])
