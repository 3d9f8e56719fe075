"""What a quote is to show, and what its orders are to do, case by case."""

from typing import Any

import pytest

from alphapack.domain.trading import Order, OrderState
from alphapack.models.quoting import ORDERS_A_SIDE_MAX, Moves, Want, follow, stands_in_way, wants
from alphapack.models.schedules import LOTS_MAX
from alphapack.models.sleeves import Sleeve

WANT = Want(1, 1000, 50)


def order(number: int, ticks: int = 1000, lots: int = 50, state: OrderState = "working", **more: Any) -> Order:
    return Order(number, f"q{number}", "x:BTCUSDT", 1, "post_only", ticks, lots, 0, state=state, **more)


def test_execution_planner_an_order_of_a_quote_stands_within_its_slack() -> None:
    slack = Want(1, 1000, 50, 3)
    assert follow(slack, [order(1, 997)], {}) == follow(slack, [order(1, 1003)], {}) == Moves([], [], 0)
    assert follow(slack, [order(1, 996)], {}) == follow(slack, [order(1, 1004)], {}) == Moves([], [1], 0)


def test_execution_planner_a_quote_is_to_show_what_it_may_yet_trade() -> None:
    sleeve = Sleeve(7, 0, lots=30, filled_lots=30, bid_lots=50, ask_lots=20)
    assert wants(sleeve, 2, 1000, 1003) == [Want(1, 998, 20, 2), Want(-1, 1005, 20, 2)]
    both = Sleeve(7, 0, lots=25, filled_lots=55, bid_lots=50, ask_lots=20)
    assert wants(both, 0, 1000, 1003) == [Want(1, 1000, 10), Want(-1, 1003, 5)], "40 bought and 15 sold: each side is filled once"
    assert wants(Sleeve(7, 0, filled_lots=40, bid_lots=20, ask_lots=20), 0, 1000, 1003) == [Want(1, 1000, 0), Want(-1, 1003, 0)]
    one_sided = Sleeve(7, 0, lots=35, filled_lots=45, bid_lots=50)
    assert wants(one_sided, 0, 1000, 1003) == [Want(1, 1000, 10), Want(-1, 1003, 35)], "what it brought is offered"


def test_execution_planner_a_price_that_cannot_be_had_is_not_shown() -> None:
    sleeve = Sleeve(7, 0, bid_lots=50, ask_lots=20)
    assert [want.lots for want in wants(sleeve, 5, 5, 9)] == [0, 20]
    assert [want.lots for want in wants(sleeve, 5, LOTS_MAX - 9, LOTS_MAX - 2)] == [50, 0]


@pytest.mark.parametrize(
    ("orders", "moves"),
    [
        ([], Moves([], [], 50)),
        ([order(1)], Moves([], [], 0)),
        ([order(1, lots=30)], Moves([], [], 20)),
        ([order(1, filled_lots=10), order(2, lots=4)], Moves([], [], 6)),
        ([order(1, 999)], Moves([], [1], 0)),
        ([order(1, 1001, 30)], Moves([], [1], 0)),
        ([order(1, 999, state="sent")], Moves([], [], 0)),
        ([order(1, 999, 30), order(2, 1000, 10)], Moves([1, 2], [], 0)),
        ([order(1, lots=30, cancelling=True)], Moves([], [], 0)),
        ([order(n, lots=1) for n in range(ORDERS_A_SIDE_MAX)], Moves([], [], 0)),
    ],
)
def test_execution_planner_the_orders_of_a_quote_keep_their_place_unless_the_price_moves(orders: list[Order], moves: Moves) -> None:
    assert follow(WANT, orders, {}) == moves


def test_execution_planner_what_is_no_longer_to_be_shown_is_called_back() -> None:
    assert follow(WANT._replace(lots=0), [order(1), order(2)], {}) == Moves([1, 2], [], 0)


def test_execution_planner_a_quote_gives_way_to_an_own_order_that_would_meet_it_and_to_no_other() -> None:
    assert follow(WANT, [order(1)], {-1: 1000}) == Moves([1], [], 0)
    assert follow(WANT, [], {-1: 1000}) == Moves([], [], 0)
    assert follow(WANT, [order(1)], {-1: 1001, 1: 990}) == Moves([], [], 0)
    assert [stands_in_way(-1, 1003, {1: limit}) for limit in (1002, 1003, 1004)] == [False, True, True]
    assert [stands_in_way(1, 1003, {-1: limit}) for limit in (1002, 1003, 1004)] == [True, True, False]
    assert not stands_in_way(1, 1003, {})
