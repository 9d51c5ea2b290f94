"""The page, and the button on it."""

from http import HTTPStatus

import urllib3
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db.models import Max, Min, Prefetch, Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from aggstream.integrations.django.models import Event, Order, Stream
from orders.accounts import user_id
from orders.models import Balance
from orders.rows import dollars, row

SHOWN = 20
ENDS = {
    "filled": "Filled",
    "partial": "In parts",
    "retried": "Retried",
    "failed": "Failed",
    "rejected": "Rejected",
    "cancelled": "Cancelled",
    "expired": "Expired",
}
"""How an order ends that the simulator plays."""
TIMEOUT = 10.0


@login_required
@require_safe
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Show the signed-in user's orders and balances, as the database has them."""
    agg_user = user_id(request.user)
    # First of all: of what comes from here on, the page hears, though it may be in it already.
    after = _handled_up_to(Event.objects.filter(stream__user_id=agg_user))
    steps = Event.objects.filter(sub_event__startswith="step_").order_by("timestamp", "pk")
    orders = Order.objects.filter(stream__user_id=agg_user).order_by("-first_timestamp", "-pk")
    balances = Balance.objects.filter(stream__user_id=agg_user)
    context = {
        "after": after,
        "ends": ENDS,
        "rows": [row(order) for order in orders.prefetch_related(Prefetch("events", steps))[:SHOWN]],
        "balances": [
            (one.venue, *("—" if cash is None else dollars(cash) for cash in (one.trading, one.wallet)))
            for one in balances
        ],
        # With an advisory lock, on PostgreSQL, the row does not tell who is alive.
        "has_stream": Stream.objects.filter(user_id=agg_user, lease_until__gt=Now()).exists(),
    }
    return render(request, "orders.html", context)


@login_required
@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Let the simulator play an order of the signed-in user's, where your application asks AGG for one."""
    scenario = request.POST.get("scenario")
    if scenario not in ENDS:
        return HttpResponse("There is no such end.", status=400, content_type="text/plain")
    wanted = {
        "userId": user_id(request.user),
        "orders": 1,
        "scenario": scenario,
        "rate": settings.ORDERS_RATE,
    }
    try:
        answer = urllib3.request("POST", settings.ORDERS_MARKET, json=wanted, timeout=TIMEOUT, retries=False)
    except urllib3.exceptions.HTTPError:
        answer = None
    if answer is None or answer.status != HTTPStatus.OK:
        return HttpResponse("The market does not answer; try again.", status=502, content_type="text/plain")
    return redirect("page")


def _handled_up_to(events: QuerySet[Event]) -> int:
    """Return the place in a user's events up to which the handlers have done their work."""
    known = events.aggregate(first=Min("pk", filter=Q(state=Event.State.PENDING)), newest=Max("pk"))
    return known["newest"] or 0 if known["first"] is None else known["first"] - 1
