"""The network architectures, each a module of its own under its official parameter names."""
