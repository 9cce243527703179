"""stub"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wording:
    prefix: str = ""
    postfix: str = ""
    trigger: str = ""
    remove: tuple[str, ...] = ()
    remove_words: bool = False
    min_words: int = 0
    max_words: int | None = None

    def __call__(self, text: str) -> str:
        return f"{self.prefix}{text}{self.postfix}"

    def fault(self, text: str) -> str | None:
        return None
