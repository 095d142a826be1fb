"""Uploaded files are hostile until they have been through here."""
