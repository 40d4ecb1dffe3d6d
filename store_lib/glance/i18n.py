"""The translation functions that third-party drivers import; nothing is translated."""


def _(message: str) -> str:
    return message


_LI = _LW = _LE = _LC = _
