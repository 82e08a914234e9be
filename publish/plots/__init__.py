"""Figures to pictures: SVG that is light or dark as its page is, and the same bytes from the same figures."""
