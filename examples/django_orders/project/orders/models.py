"""What the handlers keep. Orders and events are kept by aggstream."""

from decimal import Decimal

from django.db import models

from aggstream.integrations.django.models import Stream


class Balance(models.Model):
    """What a user has at a venue, in whole cents: exact in every database."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="balances")
    venue = models.CharField(max_length=100)
    trading_cents = models.BigIntegerField(null=True)
    wallet_cents = models.BigIntegerField(null=True)
    """None: only the REST API has told, which does not tell this."""
    received_ns = models.BigIntegerField(default=0)
    """When the event came that told so."""

    class Meta:
        constraints = (models.UniqueConstraint(fields=("stream", "venue"), name="orders_balance_once"),)
        ordering = ("venue",)

    def __str__(self) -> str:
        return self.venue

    @property
    def trading(self) -> Decimal | None:
        """In dollars."""
        return None if self.trading_cents is None else Decimal(self.trading_cents).scaleb(-2)

    @property
    def wallet(self) -> Decimal | None:
        """In dollars."""
        return None if self.wallet_cents is None else Decimal(self.wallet_cents).scaleb(-2)
