"""A module of your own: `python examples/my_module/invoices.py` serves it, `workflow.json` beside it uses it.

mplp up --detach
python examples/my_module/invoices.py &
mplp workflow run examples/my_module/workflow.json --input '{"customer": "ada", "hours": 7}' --wait
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from services.modules import Call, Module, OperationFailed

module = Module("invoices", description="Drafts invoices and checks them against what a customer may owe.")

CENT = Decimal("0.01")
TAX = Decimal("0.19")
LIMIT = Decimal("1000.00")


class Line(BaseModel):
    """What is charged for."""

    text: str
    quantity: Annotated[Decimal, Field(gt=0)]
    price: Annotated[Decimal, Field(ge=0)]


class Draft(BaseModel):
    """Parameters of `draft`."""

    customer: str
    lines: Annotated[list[Line], Field(min_length=1)]


class Invoice(BaseModel):
    """An invoice. Amounts are texts in JSON, so that no cent is lost."""

    number: str
    customer: str
    net: Decimal
    tax: Decimal
    gross: Decimal


class Check(BaseModel):
    """Parameters of `check`."""

    invoice: Invoice


class Checked(BaseModel):
    """Result of `check`: what the customer may still owe."""

    remaining: Decimal


@module.operation("draft")
async def draft(parameters: Draft, call: Call) -> Invoice:
    """Adds up the lines of an invoice. A repeated request gives the same number."""
    net = sum((line.quantity * line.price for line in parameters.lines), Decimal(0)).quantize(CENT, ROUND_HALF_UP)
    tax = (net * TAX).quantize(CENT, ROUND_HALF_UP)
    return Invoice(number=f"R-{call.request_id[:8]}", customer=parameters.customer, net=net, tax=tax, gross=net + tax)


@module.operation("check")
def check(parameters: Check) -> Checked:
    """Refuses what is more than a customer may owe. A plain function: it runs in a thread."""
    remaining = LIMIT - parameters.invoice.gross
    if remaining < 0:
        raise OperationFailed("limit.exceeded", f"{parameters.invoice.customer} may owe {LIMIT}, not {parameters.invoice.gross}.")
    return Checked(remaining=remaining)


if __name__ == "__main__":
    module.main()
