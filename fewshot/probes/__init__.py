"""Probes of frozen features: k nearest neighbours and logistic regression."""
