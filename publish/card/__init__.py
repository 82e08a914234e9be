"""Facts to README: tables, text and metadata. A card is a pure function of its facts."""
