"""The kinds of site, one module each: how an image comes to serve there, and what serves now."""
