"""Authorise requests: tokens, sessions, app signatures, credentials per user."""

from bulkbind.koodrive.auth.choice import Auth, Chosen, authorizer, caller, choose, known_secrets

__all__ = ["Auth", "Chosen", "authorizer", "caller", "choose", "known_secrets"]
