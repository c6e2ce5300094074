"""Chips, cores and processes: the mesh, the sharding of arrays, several processes, SIGTERM."""
