"""The lineage of a suite: its steps compared with each other, from the sketches that their manifests store."""
