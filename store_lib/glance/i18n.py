"""The translation functions that drivers of others import; messages are not translated."""


def _(message: str) -> str:
    return message


_LI = _LW = _LE = _LC = _
