"""All that is generic about Ray and this machine: start, reach and check a cluster, place actors, call them."""
