from __future__ import annotations

from gatewayd.model import Flow, Service, parse_address, parse_prefix
from gatewayd.watch.aggregate import RecentFlow, UnregisteredAggregate

IKE, ESP, WIREGUARD = Service(17, 500, 500), Service(50), Service(17, 51820, 51820)
DAY_S = 86_400.0


def flow(source: str, service: Service = IKE) -> Flow:
    destination = "2001:db8::1" if ":" in source else "198.51.100.7"
    has_port = service.low == service.high
    return Flow(
        service.protocol,
        parse_address(source),
        parse_address(destination),
        40000 if has_port else 0,
        service.low if has_port else 0,
    )


def test_sources_count_as_their_24_and_48() -> None:
    aggregate = UnregisteredAggregate()
    for source in ("203.0.113.1", "203.0.113.200", "203.0.114.1", "2001:db8:12:1::1", "2001:db8:12:2::1"):
        aggregate.seen(flow(source), 10.0)
    assert [(str(line.prefix), line.flows) for line in aggregate.top(9)] == [
        ("203.0.113.0/24", 2),
        ("2001:db8:12::/48", 2),
        ("203.0.114.0/24", 1),
    ]
    assert aggregate.top(1)[0].prefix == parse_prefix("203.0.113.0/24")
    assert len(aggregate) == 3


def test_services_are_counted_most_used_first() -> None:
    aggregate = UnregisteredAggregate()
    for moment, service in enumerate((ESP, IKE, WIREGUARD, WIREGUARD, IKE, WIREGUARD)):
        aggregate.seen(flow("203.0.113.1", service), float(moment))
    (line,) = aggregate.top(5)
    assert line.services == ((WIREGUARD, 3), (IKE, 2), (ESP, 1))
    assert (line.first_seen_s, line.last_seen_s, line.other) == (0.0, 5.0, 0)


def test_of_a_fragment_only_the_protocol_is_told() -> None:
    aggregate = UnregisteredAggregate()
    aggregate.seen(Flow(17, parse_address("203.0.113.1"), parse_address("198.51.100.7")), 1.0)
    assert aggregate.top(1)[0].services == ((Service(17), 1),)


def test_services_past_the_bound_are_counted_together() -> None:
    aggregate = UnregisteredAggregate()
    for port in range(1, 20):
        aggregate.seen(flow("203.0.113.1", Service(17, port, port)), 1.0)
    aggregate.seen(flow("203.0.113.1", Service(17, 1, 1)), 1.0)
    (line,) = aggregate.top(1)
    assert len(line.services) == 16
    assert line.services[0] == (Service(17, 1, 1), 2)
    assert (line.other, line.flows) == (3, 20)


def test_a_new_prefix_takes_the_place_of_the_one_not_seen_for_longest() -> None:
    aggregate = UnregisteredAggregate(prefixes=2)
    for source in ("10.0.1.1", "10.0.2.1", "10.0.1.2", "10.0.3.1"):
        aggregate.seen(flow(source), 1.0)
    assert [str(line.prefix) for line in aggregate.top(9)] == ["10.0.1.0/24", "10.0.3.0/24"]
    assert aggregate.evicted == 1


def test_what_was_last_seen_over_a_day_ago_is_dropped() -> None:
    aggregate = UnregisteredAggregate()
    aggregate.seen(flow("10.0.1.1"), 0.0)
    aggregate.seen(flow("10.0.2.1"), 1.0)
    assert aggregate.expire(DAY_S) == 0
    assert aggregate.expire(DAY_S + 0.5) == 1
    assert [str(line.prefix) for line in aggregate.top(9)] == ["10.0.2.0/24"]


def test_what_was_seen_before_the_clock_was_set_back_does_not_stay_for_ever() -> None:
    aggregate = UnregisteredAggregate()
    aggregate.seen(flow("10.0.1.1"), 400 * DAY_S)
    assert aggregate.expire(0.0) == 1


def test_off_keeps_nothing() -> None:
    aggregate = UnregisteredAggregate("off")
    aggregate.seen(flow("10.0.0.1"), 1.0)
    assert aggregate.top(9) == ()


def test_turning_the_detail_down_drops_what_it_no_longer_covers() -> None:
    aggregate = UnregisteredAggregate()
    aggregate.seen(flow("10.0.0.1"), 1.0)
    aggregate.use("aggregate")
    assert len(aggregate) == 1
    aggregate.use("off")
    aggregate.seen(flow("10.0.0.1"), 2.0)
    assert len(aggregate) == 0


def test_single_flows_are_kept_only_in_detail_flows_and_only_the_last() -> None:
    aggregate = UnregisteredAggregate("flows", max_recent=2)
    for moment in range(3):
        aggregate.seen(flow(f"10.0.{moment}.1"), float(moment))
    assert aggregate.recent() == (RecentFlow(flow("10.0.1.1"), 1.0), RecentFlow(flow("10.0.2.1"), 2.0))
    plain = UnregisteredAggregate()
    plain.seen(flow("10.0.0.1"), 1.0)
    assert plain.recent() == ()


def test_single_flows_go_a_day_after_they_were_seen_and_with_their_detail() -> None:
    aggregate = UnregisteredAggregate("flows")
    aggregate.seen(flow("10.0.0.1"), 1.0)
    aggregate.seen(flow("10.0.0.2"), DAY_S)
    aggregate.expire(DAY_S + 2.0)
    assert aggregate.recent() == (RecentFlow(flow("10.0.0.2"), DAY_S),)
    aggregate.use("flows")
    assert len(aggregate.recent()) == 1
    aggregate.use("aggregate")
    assert aggregate.recent() == ()
    assert len(aggregate) == 1
