"""Authorise requests: tokens, sessions, app signatures, credentials per user."""
