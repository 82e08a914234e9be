"""The Hub's API: one handler for each route, grouped by what it is about."""
