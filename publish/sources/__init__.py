"""Files in a folder or on a Hub, read by position."""
