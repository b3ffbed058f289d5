"""Version of the package, which config.json in a workdir records."""

VERSION = "0.2.0"
