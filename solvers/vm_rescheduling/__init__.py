"""Rescheduling of virtual machines under a migration limit."""
