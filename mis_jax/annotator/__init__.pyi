from . import server, session
from .session import Session

__all__ = [
    "Session",
    "server",
    "session",
]
