"""Imports: activations that other tools cached, as a source."""
