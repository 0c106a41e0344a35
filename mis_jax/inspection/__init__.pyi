from . import inspect, measure, oracle, page, survey

__all__ = [
    "inspect",
    "measure",
    "oracle",
    "page",
    "survey",
]
