"""The version of treadle, for records; a module of its own so that no room imports the face for it."""

VERSION = "0.1.0"
