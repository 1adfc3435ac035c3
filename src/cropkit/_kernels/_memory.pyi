from typing import Self, final

AVAILABLE: bool

@final
class Block:
    def __new__(cls, size: int) -> Self: ...
