"""The version of the library, on its own so that the build can read it."""

VERSION = "0.1.0"
