"""Version of the package; config.json in a workdir has the one that made it."""

VERSION = "0.2.0"
