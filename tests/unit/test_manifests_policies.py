"""The evaluator that judges the manifests' NetworkPolicies knows what Kubernetes says of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.network_policies import Outside, Pod, allows, selects

Object = dict[str, Any]

A = Pod("a", {"app": "a"}, ports={"web": 80})
B = Pod("b", {"app": "b", "tier": "back"}, ports={"web": 80})
ELSEWHERE = Pod("c", {"app": "a"}, namespace="other")
CLIENT = Outside("client", "10.1.2.3")


def policy(selector: Object, **spec: Any) -> Object:
    return {"metadata": {"namespace": "dicomnode"}, "spec": {"podSelector": selector, **spec}}


DENY_ALL = policy({}, policyTypes=["Ingress", "Egress"])
OUT_OF_A = policy(
    {"matchLabels": {"app": "a"}},
    policyTypes=["Egress"],
    egress=[{"to": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": 80}]}],
)
INTO_B = policy(
    {"matchLabels": {"app": "b"}},
    policyTypes=["Ingress"],
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}], "ports": [{"port": 80}]}],
)


def test_without_a_policy_everything_passes() -> None:
    assert allows([], A, B, 1)
    assert allows([], CLIENT, B, 1)


def test_a_selected_pod_is_closed_but_for_what_is_named() -> None:
    assert not allows([DENY_ALL], A, B, 80)
    assert allows([DENY_ALL, OUT_OF_A, INTO_B], A, B, 80)
    assert not allows([DENY_ALL, OUT_OF_A, INTO_B], B, A, 80)
    assert not allows([DENY_ALL, OUT_OF_A, INTO_B], A, B, 81)
    assert not allows([DENY_ALL, OUT_OF_A, INTO_B], A, B, 80, "UDP")


@pytest.mark.parametrize("half", [OUT_OF_A, INTO_B])
def test_both_ends_have_to_agree(half: Object) -> None:
    assert not allows([DENY_ALL, half], A, B, 80)


def test_a_policy_of_one_direction_leaves_the_other_open() -> None:
    assert allows([INTO_B], B, CLIENT, 443)
    assert not allows([INTO_B], CLIENT, B, 80)


def test_ingress_is_implied_and_egress_only_by_its_rules() -> None:
    closed = policy({"matchLabels": {"app": "b"}})
    assert not allows([closed], A, B, 80)
    assert allows([closed], B, A, 80)
    assert not allows([policy({"matchLabels": {"app": "b"}}, egress=[])], B, A, 80)


def test_a_pod_selector_means_the_policys_own_namespace() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}
    assert allows([policy({}, ingress=[rule])], A, B, 80)
    assert not allows([policy({}, ingress=[rule])], ELSEWHERE, B, 80)


def test_a_namespace_selector_beside_a_pod_selector_wants_both() -> None:
    both = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}},
        "podSelector": {"matchLabels": {"app": "a"}},
    }
    assert allows([policy({}, ingress=[{"from": [both]}])], ELSEWHERE, B, 80)
    assert not allows([policy({}, ingress=[{"from": [both]}])], A, B, 80)


def test_two_peers_of_a_list_are_alternatives() -> None:
    peers = [{"ipBlock": {"cidr": "10.9.0.0/16"}}, {"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert allows([policy({}, ingress=[{"from": peers}])], CLIENT, B, 80)


def test_an_exception_is_taken_out_of_a_block() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.2.0/24"]}}
    assert not allows([policy({}, ingress=[{"from": [block]}])], CLIENT, B, 80)


def test_a_rule_without_peers_or_ports_is_for_all() -> None:
    assert allows([policy({}, ingress=[{}])], CLIENT, B, 12345, "UDP")


def test_ports_may_be_named_or_a_range() -> None:
    named = policy({}, ingress=[{"ports": [{"port": "web"}]}])
    assert allows([named], A, B, 80)
    assert not allows([named], A, B, 81)
    span = policy({}, ingress=[{"ports": [{"port": 80, "endPort": 82}]}])
    assert allows([span], A, B, 82)
    assert not allows([span], A, B, 83)


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["back"], True),
        ("In", ["front"], False),
        ("NotIn", ["front"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_expressions_of_a_selector(operator: str, values: list[str], expected: bool) -> None:
    expression = {"key": "tier", "operator": operator, "values": values}
    assert selects({"matchExpressions": [expression]}, B.labels) is expected
