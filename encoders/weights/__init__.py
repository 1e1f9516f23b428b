"""Weights files: fetched, found, verified, and read without running anything that they hold; `mini`'s own lie here."""
