from typing import Self, final

@final
class Block:
    def __new__(cls, size: int) -> Self: ...
