"""A card as Skyvern takes it."""

from __future__ import annotations

CARD = {
    "card_number": "4111111111111111",
    "card_cvv": "123",
    "card_exp_month": "10",
    "card_exp_year": "2030",
    "card_brand": "visa",
    "card_holder_name": "A B",
}
