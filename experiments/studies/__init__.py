"""Small studies, each a module that runs by itself."""
