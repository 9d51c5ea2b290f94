"""The state of each order, and waiting for its end."""

from aggstream.orders._order import Contradiction, Order, Outcome, Step, StepState

__all__ = ["Contradiction", "Order", "Outcome", "Step", "StepState"]
