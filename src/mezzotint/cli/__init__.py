"""The command line: a leaf; it parses, calls the library and shows."""
