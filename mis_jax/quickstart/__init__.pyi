from . import quickstart, report

__all__ = [
    "quickstart",
    "report",
]
