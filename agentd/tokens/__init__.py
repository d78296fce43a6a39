"""Session tokens: PASETO v4.local and the claims inside. Pure: keys, nonces and times are arguments."""

from .claims import Claims, footer_for, key_id_of, open_token, seal_token
from .paseto import TokenError

__all__ = ["Claims", "TokenError", "footer_for", "key_id_of", "open_token", "seal_token"]
