"""Where vectors and items live, and how items are found: Redis, Qdrant, retrieval."""
