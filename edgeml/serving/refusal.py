"""How a request is refused: a status, a sentence, and the field at fault where there is one."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - the request is at fault, not the server
    """An answer of the 4xx kind (or 503 where a limit of the server is reached).

    `message` is for the client alone: it may name what the client sent. `field` is a column or tensor of the model.
    """

    def __init__(self, status: int, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
