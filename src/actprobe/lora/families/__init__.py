"""Primitive families: batched pure functions on the factors (A, B) or on W = s·B·A without W."""
