"""A fork of this template: begun under a name of its own, and brought up to later versions of the template."""
