"""How requests are authorised: tokens, sessions, app signatures, credentials per user.

`choice` picks one from the settings; `renewing` replaces what ends, once for all who need it.
"""

from bulkbind.koodrive.auth.choice import Auth, Chosen, authorizer, choose, known_secrets

__all__ = ["Auth", "Chosen", "authorizer", "choose", "known_secrets"]
