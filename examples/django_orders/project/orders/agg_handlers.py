"""What is done with events, in the stream's process. Receivers, because they are told the account as well."""

from typing import Any

from django.dispatch import receiver

import aggstream
from aggstream.integrations.django.models import Stream
from aggstream.integrations.django.signals import event_received
from orders.models import Balance

# Of the simulator's balances over REST; AGG's units are not public.
UNITS_PER_CENT = 10_000


@receiver(event_received, sender=aggstream.BalanceUpdate)
def balance_told(sender: type, event: aggstream.BalanceUpdate, account: str, **_: Any) -> None:
    _keep(
        account,
        event.venue,
        event.received_ns,
        trading_cents=event.trading_balance_cents,
        wallet_cents=event.wallet_balance_cents,
    )


@receiver(event_received, sender=aggstream.BalanceSnapshot)
def balances_read(sender: type, event: aggstream.BalanceSnapshot, account: str, **_: Any) -> None:
    """A `balance_update` may have been missed: this is what REST says."""
    for position in event.balances.positions:
        if position.balance_text is not None:
            cents = int(position.balance_text) // UNITS_PER_CENT
            _keep(account, position.venue, event.received_ns, trading_cents=cents, wallet_cents=None)


def _keep(account: str, venue: str, received_ns: int, **cents: int | None) -> None:
    """Keep a balance, unless a newer one is kept: events come again after a crash, and after a failure."""
    stream = Stream.objects.get(account=account)
    balance, _ = Balance.objects.get_or_create(stream=stream, venue=venue)
    is_older = Balance.objects.filter(pk=balance.pk, received_ns__lte=received_ns)
    is_older.update(received_ns=received_ns, **cents)
