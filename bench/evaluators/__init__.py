"""Evaluators plan the cells of one kind and compute them; each is one file that registers itself."""
