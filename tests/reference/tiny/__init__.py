"""Makers of tiny pools, one module a kind of model."""
