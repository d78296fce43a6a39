"""Session tokens: PASETO v4.local and the claims inside. Pure: keys, nonces and times are arguments."""

from .claims import Claims, SealedToken, footer_for, open_token, parse_token, seal_token
from .paseto import TokenError

__all__ = ["Claims", "SealedToken", "TokenError", "footer_for", "open_token", "parse_token", "seal_token"]
