"""Evaluation at the end of a run: held-out loss, and zero-, one- and few-shot tasks beside chance and trivial
baselines.
"""
